"""JobSets as plain dictionaries: a training's, made from a template, and what one's status says.

https://jobset.sigs.k8s.io, API jobset.x-k8s.io/v1alpha2. A JobSet has one headless service of its
own name, and its pods the host names <jobset>-<replicated job>-<job>-<pod>.
"""

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from capstan.errors import SettingError
from capstan.train.workers import TF_CONFIG

API_VERSION, KIND = "jobset.x-k8s.io/v1alpha2", "JobSet"
NAME_LABEL = "jobset.sigs.k8s.io/jobset-name"  # on its pods
ATTEMPT_LABEL = "jobset.sigs.k8s.io/restart-attempt"  # on its pods
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"  # on its pods: the worker's rank
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
FINGERPRINT = "capstan/fingerprint"  # annotation: of the spec as it was launched
INDEX = "JOB_COMPLETION_INDEX"
PORT = 2222
NAME_LENGTH = 63  # of host names
INPUT, OUTPUT = "input", "output"

Json = dict[str, Any]


@dataclass(frozen=True)
class Launch:
    """What a training's JobSet has that the template leaves open."""

    name: str
    input: Path  # as workers see it
    output: Path  # as workers see it
    command: Sequence[str] = ()  # else the template's
    workers: int | None = None  # else the template's
    image: str | None = None  # else the template's
    queue: str | None = None  # of Kueue; else the template's


def read_template(path: Path) -> Json:
    """A JobSet to start from: one replicated job of one indexed job, whose first container trains.

    SettingError for anything else.
    """
    try:
        template = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise SettingError(f"{path}: cannot be read ({why}); give another --template") from error
    if not isinstance(template, dict) or (
        (template.get("apiVersion"), template.get("kind")) != (API_VERSION, KIND)
    ):
        raise SettingError(f"{path}: no {KIND} of {API_VERSION}; give another --template")
    try:
        job = worker_job(template)
        whole = job["completionMode"] == "Indexed" and container_of(template)["command"]
    except (KeyError, TypeError, ValueError, IndexError):
        whole = False
    if not whole:
        raise SettingError(
            f"{path}: needs one replicated job, Indexed, whose first container has a command; see "
            "deploy/kubernetes/base/jobset"
        )
    return template


def render(template: Json, launch: Launch) -> Json:
    """The JobSet of a launch; SettingError for a name or a number that cannot be."""
    jobset = deepcopy(template)
    job = worker_job(jobset)
    workers = job["completions"] if launch.workers is None else launch.workers
    hosts = host_names(jobset, launch.name, workers)
    metadata = jobset["metadata"]
    metadata.pop("namespace", None)  # the launcher's own
    metadata["name"] = launch.name
    if launch.queue is not None:
        metadata.setdefault("labels", {})[QUEUE_LABEL] = launch.queue
    job["completions"] = job["parallelism"] = workers
    container = container_of(jobset)
    container["image"] = launch.image or container["image"]
    container["command"] = [*(launch.command or container["command"])]
    container["args"] = [f"--input={launch.input}", f"--output={launch.output}"]
    container["env"] = [
        *(each for each in container.get("env", []) if each["name"] not in (INDEX, TF_CONFIG)),
        *_place(hosts),
    ]
    metadata.setdefault("annotations", {})[FINGERPRINT] = fingerprint(jobset)
    return jobset


def host_names(jobset: Json, name: str, workers: int) -> list[str]:
    """Where each worker of a JobSet of that name is reached."""
    job = f"{name}-{jobset['spec']['replicatedJobs'][0]['name']}-0"
    longest = len(f"{job}-{workers - 1}-abcde")  # pods' names end in five letters of their own
    if not re.fullmatch("[a-z]([a-z0-9-]*[a-z0-9])?", name) or longest > NAME_LENGTH:
        raise SettingError(
            f"--name {name}: give at most {NAME_LENGTH - longest + len(name)} small letters, "
            "digits and hyphens, a letter first and no hyphen last"
        )
    if workers < 1:
        raise SettingError(f"--workers {workers}: give at least 1")
    subdomain = jobset["spec"].get("network", {}).get("subdomain", name)
    return [f"{job}-{rank}.{subdomain}" for rank in range(workers)]


def _place(hosts: Sequence[str]) -> list[Json]:
    """Environment of a worker: the kubelet puts its own index into what TensorFlow reads."""
    cluster = {"worker": [f"{host}:{PORT}" for host in hosts]}
    task = f'{{"type": "worker", "index": $({INDEX})}}'
    index = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_ANNOTATION}']"}}
    return [
        {"name": INDEX, "valueFrom": index},  # before what refers to it
        {"name": TF_CONFIG, "value": f'{{"cluster": {json.dumps(cluster)}, "task": {task}}}'},
    ]


def worker_job(jobset: Json) -> Json:
    """The spec of the one Job; ValueError where there are others."""
    (replicated,) = jobset["spec"]["replicatedJobs"]
    if replicated.get("replicas", 1) != 1:
        raise ValueError("more than one replica")
    job: Json = replicated["template"]["spec"]
    return job


def container_of(jobset: Json) -> Json:
    """The container that trains."""
    container: Json = worker_job(jobset)["template"]["spec"]["containers"][0]
    return container


def mounts(jobset: Json) -> list[Path]:
    """Where the workers have persistent volumes."""
    pod = worker_job(jobset)["template"]["spec"]
    shared = {each["name"] for each in pod.get("volumes", []) if "persistentVolumeClaim" in each}
    return [
        Path(mount["mountPath"])
        for mount in pod["containers"][0].get("volumeMounts", [])
        if mount["name"] in shared
    ]


def fingerprint(jobset: Json) -> str:
    """A hash that changes with the spec."""
    return sha256(json.dumps(jobset["spec"], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class JobSetState:
    """How far a JobSet is."""

    phase: str  # starting, queued, running, done or failed
    restarts: int = 0
    why: str = ""  # it failed

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in ("done", "failed")

    def __str__(self) -> str:
        restarts = f", restarted {self.restarts} times" if self.restarts > 1 else ""
        restarts = ", restarted once" if self.restarts == 1 else restarts
        return f"{self.phase}{restarts}" + (f": {self.why}" if self.why else "")


def state_of(jobset: Mapping[str, Any]) -> JobSetState:
    """The state that a JobSet's status tells of."""
    status = jobset.get("status") or {}
    restarts = status.get("restarts", 0)
    conditions = {
        condition["type"]: condition.get("message", "")
        for condition in status.get("conditions") or ()
        if condition["status"] == "True"
    }
    if "Failed" in conditions:
        return JobSetState("failed", restarts, conditions["Failed"])
    if "Completed" in conditions:
        return JobSetState("done", restarts)
    if "Suspended" in conditions:
        return JobSetState("queued", restarts)
    jobs = status.get("replicatedJobsStatus") or ()
    return JobSetState("running" if any(job.get("ready") for job in jobs) else "starting", restarts)
