"""The specs of the tutorial that this system re-makes, in what they ask of a Pachyderm.

Inputs, workers and switches are its own, for Pachyderm 1.11 (2020); programs and descriptions not.
"""

from typing import Any


def _pfs(repo: str, glob: str, **more: str) -> dict[str, Any]:
    return {"pfs": {"repo": repo, "glob": glob, **more}}


INPUTS = {
    "images": _pfs("rawdata", "/*/*"),
    "features": _pfs("images", "/*"),
    "consolidate": {
        "join": [_pfs("rawdata", "/*/(*)", join_on="$1"), _pfs("features", "/(*)", join_on="$1")]
    },
    "model": _pfs("consolidate", "/"),
    "predict": {"cross": [_pfs("model", "/saved"), _pfs("inpredict", "/*")]},
}
WORKERS = {"images": 20, "features": 4, "consolidate": 4, "model": 1, "predict": 1}
SEED = {
    name: {
        "pipeline": {"name": name},
        "description": f"The tutorial's {name}.",
        "transform": {"cmd": ["python3", "stage.py", f"--stage={name}"], "image": "seed:1.0.1"},
        "input": tree,
        "parallelism_spec": {"constant": WORKERS[name]},
        "enable_stats": True,
    }
    for name, tree in INPUTS.items()
}
SEED["images"]["standby"] = True
