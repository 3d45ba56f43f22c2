// Any of the specs beside this file, for another registry, tag, number of workers, GPU or node:
//
//   pachctl create pipeline --jsonnet capstan.jsonnet --arg name=features --arg tag=0.2.0 --arg gpus=2
//
// Without further arguments it is that spec, which tests/deploy/pachyderm/test_template.py holds. It makes one
// spec and not a list of them, for of a list the server (2.12) refuses durations such as "600s"; and
// it imports nothing, for the server renders it.
function(
  name,  // images, features, consolidate, model, predict or ingest-service
  registry='capstan',
  tag='0.1.0',
  workers='',  // else the spec's own number
  gpu='nvidia.com/gpu',  // or nvidia.com/mig-1g.10gb and the like
  gpus='1',  // for each worker of features and model; 0 for none, and for images without CUDA
  nodes='',  // labels of the nodes that workers may run on: KEY=VALUE,KEY=VALUE
  claim='',  // volume claim that keeps what ingest-service was told, should its pod be lost
)
  local image(target) = '%s/%s:%s' % [registry, target, tag];
  local gpu_image(target) = image(target + (if gpus == '0' then '' else '-gpu'));
  local with_gpu = if gpus == '0' then {} else {
    resource_limits+: { gpu: { type: gpu, number: std.parseInt(gpus) } },
    // NVIDIA's resources are given by nodes that those who need no GPU are to keep off.
    tolerations: [{ key: 'nvidia.com/gpu', operator: 'EXISTS', effect: 'NO_SCHEDULE' }],
  };
  local with_nodes = if nodes == '' then {} else {
    scheduling_spec: {
      node_selector: { [pair[0]]: pair[1] for pair in [std.splitLimit(n, '=', 1) for n in std.split(nodes, ',')] },
    },
  };
  local with_claim = if claim == '' then {} else {
    pod_spec: std.manifestJsonMinified({ securityContext: { fsGroup: 1000 } }),
    pod_patch: std.manifestJsonMinified([
      {
        op: 'add',
        path: '/volumes/-',
        value: { name: 'data', persistentVolumeClaim: { claimName: claim } },
      },
      {
        op: 'add',
        path: '/containers/0/volumeMounts/-',
        value: { name: 'data', mountPath: '/data' },
      },
    ]),
  };
  local pipelines = {
    images: {
      "pipeline": {"name": "images"},
      "description": "Downloads the pictures of each TSV chunk into an image shard: tar, parquet and stats.",
      "input": {"pfs": {"repo": "rawdata", "branch": "master", "glob": "/*/*"}},
      "transform": {
        "image": image('ingest'),
        "cmd": ["capstan", "ingest", "--input", "/pfs/rawdata", "--output", "/pfs/out", "--processes", "2"],
        "err_cmd": ["true"],
        "env": {"CAPSTAN_LOG_FORMAT": "json", "HOME": "/tmp"}
      },
      "parallelism_spec": {"constant": 8},
      "autoscaling": true,
      "resource_requests": {"cpu": 2, "memory": "512Mi", "disk": "4Gi"},
      "resource_limits": {"memory": "2Gi"},
      "sidecar_resource_requests": {"cpu": 0.5, "memory": "256Mi"},
      "sidecar_resource_limits": {"memory": "1Gi"},
      "datum_tries": 3,
      "datum_timeout": "7200s"
    },
    features: {
      "pipeline": {"name": "features"},
      "description": "Turns each image shard into a shard of ResNet50 features: npy and parquet.",
      "input": {"pfs": {"repo": "images", "branch": "master", "glob": "/*/*.tar"}},
      "transform": {
        "image": gpu_image('featurize'),
        "cmd": ["capstan", "featurize", "--input", "/pfs/images", "--output", "/pfs/out", "--datum-batching"],
        "err_cmd": ["true"],
        "datum_batching": true,
        "env": {"CAPSTAN_LOG_FORMAT": "json", "HOME": "/tmp", "KERAS_HOME": "/tmp/keras"}
      },
      "parallelism_spec": {"constant": 2},
      "autoscaling": true,
      "resource_requests": {"cpu": 4, "memory": "6Gi", "disk": "4Gi"},
      "resource_limits": {"memory": "12Gi"},
      "sidecar_resource_requests": {"cpu": 0.5, "memory": "256Mi"},
      "sidecar_resource_limits": {"memory": "1Gi"},
      "datum_set_spec": {"per_worker": 1},
      "datum_tries": 3,
      "datum_timeout": "3600s"
    } + with_gpu,
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
        "err_cmd": ["true"],
        "env": {"CAPSTAN_LOG_FORMAT": "json", "HOME": "/tmp"}
      },
      "parallelism_spec": {"constant": 2},
      "autoscaling": true,
      "resource_requests": {"cpu": 0.5, "memory": "128Mi", "disk": "1Gi"},
      "resource_limits": {"memory": "512Mi"},
      "sidecar_resource_requests": {"cpu": 0.5, "memory": "256Mi"},
      "sidecar_resource_limits": {"memory": "1Gi"},
      "datum_tries": 3,
      "datum_timeout": "600s"
    },
    model: {
      "pipeline": {"name": "model"},
      "description": "Trains the captioner on all training shards.",
      "input": {"pfs": {"repo": "consolidate", "branch": "master", "glob": "/"}},
      "transform": {
        "image": gpu_image('train'),
        "cmd": ["capstan", "train", "--input", "/pfs/consolidate", "--output", "/pfs/out"],
        "env": {"CAPSTAN_LOG_FORMAT": "json", "HOME": "/tmp", "KERAS_HOME": "/tmp/keras"}
      },
      "parallelism_spec": {"constant": 1},
      "autoscaling": true,
      "resource_requests": {"cpu": 4, "memory": "8Gi", "disk": "20Gi"},
      "resource_limits": {"memory": "32Gi"},
      "sidecar_resource_requests": {"cpu": 0.5, "memory": "256Mi"},
      "sidecar_resource_limits": {"memory": "1Gi"},
      "datum_tries": 2,
      "datum_timeout": "86400s"
    } + with_gpu,
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
      "resource_requests": {"cpu": 2, "memory": "3Gi", "disk": "1Gi"},
      "resource_limits": {"memory": "6Gi"},
      "sidecar_resource_requests": {"cpu": 0.5, "memory": "256Mi"},
      "sidecar_resource_limits": {"memory": "1Gi"},
      "datum_set_spec": {"per_worker": 1},
      "datum_tries": 3,
      "datum_timeout": "600s"
    },
    'ingest-service': {
      "pipeline": {"name": "ingest-service"},
      "description": "Downloads TSVs that are sent to it over HTTP, and puts their image shards into its own repo.",
      "spout": {"service": {"internal_port": 8090, "external_port": 8090, "type": "ClusterIP"}},
      "transform": {
        "image": image('ingest'),
        "cmd": [
          "capstan", "ingest", "serve",
          "--host", "0.0.0.0",
          "--port", "8090",
          "--data", if claim == '' then '/tmp/ingest' else '/data/ingest',
          "--pachyderm-repo", "ingest-service",
          "--processes", "2"
        ],
        "secrets": [{"name": "capstan-ingest", "env_var": "CAPSTAN_TOKEN", "key": "token"}],
        "env": {"CAPSTAN_LOG_FORMAT": "json", "HOME": "/tmp"}
      },
      "parallelism_spec": {"constant": 1},
      "resource_requests": {"cpu": 1, "memory": "1Gi", "disk": "16Gi"},
      "resource_limits": {"memory": "4Gi"},
      "sidecar_resource_requests": {"cpu": 0.5, "memory": "256Mi"},
      "sidecar_resource_limits": {"memory": "1Gi"}
    } + with_claim,
  };
  pipelines[name]
  + with_nodes
  + (if workers == '' then {} else { parallelism_spec: { constant: std.parseInt(workers) } })
