// Any of the five specs beside this file, for another registry, tag, number of workers or GPU:
//
//   pachctl create pipeline --jsonnet capstan.jsonnet --arg name=features --arg tag=0.2.0 --arg gpus=2
//
// Without further arguments it is that spec, which tests/cluster/test_template.py holds. It makes one
// spec and not a list of them, for of a list the server (2.12) refuses durations such as "600s"; and
// it imports nothing, for the server renders it.
function(
  name,  // images, features, consolidate, model or predict
  registry='capstan',
  tag='0.1.0',
  workers='',  // else the spec's own number
  gpu='nvidia.com/gpu',  // or nvidia.com/mig-1g.10gb and the like
  gpus='1',  // for each worker of features and model; 0 for none
)
  local image(target) = '%s/%s:%s' % [registry, target, tag];
  local limits = if gpus == '0' then {} else { gpu: { type: gpu, number: std.parseInt(gpus) } };
  local pipelines = {
    images: {
      "pipeline": {"name": "images"},
      "description": "Downloads the pictures of each TSV chunk into an image shard: tar, parquet and stats.",
      "input": {"pfs": {"repo": "rawdata", "branch": "master", "glob": "/*/*"}},
      "transform": {
        "image": image('ingest'),
        "cmd": ["capstan", "ingest", "--input", "/pfs/rawdata", "--output", "/pfs/out"],
        "env": {"CAPSTAN_LOG_FORMAT": "json", "HOME": "/tmp"}
      },
      "parallelism_spec": {"constant": 8},
      "autoscaling": true,
      "resource_requests": {"cpu": 1, "memory": "1Gi", "disk": "8Gi"},
      "resource_limits": {"memory": "4Gi"},
      "datum_tries": 3,
      "datum_timeout": "7200s"
    },
    features: {
      "pipeline": {"name": "features"},
      "description": "Turns each image shard into a shard of ResNet50 features: npy and parquet.",
      "input": {"pfs": {"repo": "images", "branch": "master", "glob": "/*/*.tar"}},
      "transform": {
        "image": image('featurize'),
        "cmd": ["capstan", "featurize", "--input", "/pfs/images", "--output", "/pfs/out", "--datum-batching"],
        "datum_batching": true,
        "env": {"CAPSTAN_LOG_FORMAT": "json", "HOME": "/tmp", "KERAS_HOME": "/tmp/keras"}
      },
      "parallelism_spec": {"constant": 2},
      "autoscaling": true,
      "resource_requests": {"cpu": 4, "memory": "6Gi", "disk": "8Gi"},
      "resource_limits": {"memory": "12Gi"} + limits,
      "datum_set_spec": {"per_worker": 1},
      "datum_tries": 3,
      "datum_timeout": "3600s"
    },
    consolidate: {
      "pipeline": {"name": "consolidate"},
      "description": "Joins the captions of each chunk to its features; the arrays are passed on by symlink, so no vector moves.",
      "input": {
        "join": [
          {
            "pfs": {
              "repo": "rawdata",
              "branch": "master",
              "glob": "/(*)/(*)",
              "join_on": "$1/$2"
            }
          },
          {
            "pfs": {
              "name": "features",
              "repo": "features",
              "branch": "master",
              "glob": "/(*)/(*).parquet",
              "join_on": "$1/$2"
            }
          },
          {
            "pfs": {
              "name": "vectors",
              "repo": "features",
              "branch": "master",
              "glob": "/(*)/(*).npy",
              "join_on": "$1/$2",
              "empty_files": true
            }
          }
        ]
      },
      "transform": {
        "image": image('ingest'),
        "cmd": [
          "capstan", "consolidate",
          "--input", "/pfs/rawdata",
          "--features", "/pfs/features",
          "--vectors", "/pfs/vectors",
          "--output", "/pfs/out"
        ],
        "env": {"CAPSTAN_LOG_FORMAT": "json", "HOME": "/tmp"}
      },
      "parallelism_spec": {"constant": 2},
      "autoscaling": true,
      "resource_requests": {"cpu": 1, "memory": "1Gi", "disk": "2Gi"},
      "resource_limits": {"memory": "2Gi"},
      "datum_tries": 3,
      "datum_timeout": "600s"
    },
    model: {
      "pipeline": {"name": "model"},
      "description": "Trains the captioner on all training shards.",
      "input": {"pfs": {"repo": "consolidate", "branch": "master", "glob": "/"}},
      "transform": {
        "image": image('train'),
        "cmd": ["capstan", "train", "--input", "/pfs/consolidate", "--output", "/pfs/out"],
        "env": {"CAPSTAN_LOG_FORMAT": "json", "HOME": "/tmp", "KERAS_HOME": "/tmp/keras"}
      },
      "parallelism_spec": {"constant": 1},
      "autoscaling": true,
      "resource_requests": {"cpu": 4, "memory": "8Gi", "disk": "32Gi"},
      "resource_limits": {"memory": "32Gi"} + limits,
      "datum_tries": 2,
      "datum_timeout": "86400s"
    },
    predict: {
      "pipeline": {"name": "predict"},
      "description": "Captions each picture of inpredict: image.png.txt, and JSON with scores.",
      "input": {
        "cross": [
          {"pfs": {"repo": "model", "branch": "master", "glob": "/saved"}},
          {"pfs": {"repo": "inpredict", "branch": "master", "glob": "/*"}}
        ]
      },
      "transform": {
        "image": image('train'),
        "cmd": [
          "capstan", "predict",
          "--model", "/pfs/model/saved",
          "--input", "/pfs/inpredict",
          "--output", "/pfs/out"
        ],
        "env": {"CAPSTAN_LOG_FORMAT": "json", "HOME": "/tmp", "KERAS_HOME": "/tmp/keras"}
      },
      "parallelism_spec": {"constant": 1},
      "autoscaling": true,
      "resource_requests": {"cpu": 1, "memory": "2Gi", "disk": "2Gi"},
      "resource_limits": {"memory": "4Gi"},
      "datum_set_spec": {"per_worker": 1},
      "datum_tries": 3,
      "datum_timeout": "600s"
    },
  };
  pipelines[name]
  + (if workers == '' then {} else { parallelism_spec: { constant: std.parseInt(workers) } })
