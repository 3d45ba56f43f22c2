"""A Kubernetes cluster of this machine: JobSets, their controller, and pods that are processes.

What is kept, changed and told of is as JobSet 0.12, the Job controller and a kubelet have it, as
far as a training needs it. `api_server.py` is how one speaks with it.
"""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from tests.paths import ROOT

Json = dict[str, Any]
JOBSETS, PODS = "jobsets", "pods"


class Cluster:
    """One namespace: objects by kind and name, each change with a version for watches to follow."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 0
        self.compacted = 0  # changes up to it are forgotten
        self.history: list[tuple[int, str, str, Json]] = []  # version, kind, event, object
        self.full = ""  # why no pod finds a node
        self._objects: dict[tuple[str, str], Json] = {}
        self._containers: dict[str, Container] = {}  # by pod
        self._numbers = itertools.count(1)

    # Objects

    def get(self, kind: str, name: str) -> Json | None:
        with self.changed:
            return deepcopy(self._objects.get((kind, name)))

    def all(self, kind: str) -> list[Json]:
        with self.changed:
            return [deepcopy(each) for (of, _), each in self._objects.items() if of == kind]

    def _store(self, kind: str, item: Json, event: str = "MODIFIED") -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        key = (kind, item["metadata"]["name"])
        self._objects[key] = item
        if event == "DELETED":
            del self._objects[key]
        self.history.append((self.version, kind, event, deepcopy(item)))
        self.changed.notify_all()

    def compact(self) -> None:
        """Forget all changes so far, as etcd does after minutes."""
        with self.changed:
            self.compacted = self.version
            self.history.clear()

    def wait(self, condition: Callable[[], Any], seconds: float = 30.0) -> Any:
        """What a condition is once it holds; AssertionError when that takes too long."""
        with self.changed:
            deadline = time.monotonic() + seconds
            while not (found := condition()):
                left = deadline - time.monotonic()
                assert left > 0, f"waited in vain: {self.all(JOBSETS)}"
                self.changed.wait(left)
            return found

    def add_pod(self, name: str) -> Json:
        """A pod that has nothing to do with a JobSet."""
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
        with self.changed:
            pod["metadata"] |= {"uid": f"uid-{next(self._numbers)}"}  # type: ignore[operator]
            self._store(PODS, pod, "ADDED")
        return pod

    def remove_pod(self, name: str) -> None:
        """Delete a pod, and the JobSets that it owns."""
        with self.changed:
            pod = self._objects[PODS, name]
            self._store(PODS, pod, "DELETED")
            for jobset in self.all(JOBSETS):
                owners = jobset["metadata"].get("ownerReferences", [])
                if owners and all(owner["uid"] == pod["metadata"]["uid"] for owner in owners):
                    self.delete_jobset(jobset["metadata"]["name"])

    # The API's part

    def create_jobset(self, jobset: Json) -> Json:
        """Keep a new JobSet with its defaults, and start it unless it is suspended."""
        with self.changed:
            metadata, spec = jobset["metadata"], jobset["spec"]
            metadata |= {"uid": f"uid-{next(self._numbers)}", "creationTimestamp": now()}
            spec.setdefault("successPolicy", {"operator": "All"})
            spec.setdefault("startupPolicy", {"startupPolicyOrder": "AnyOrder"})
            for replicated in spec["replicatedJobs"]:
                replicated.setdefault("groupName", "default")
            jobset["status"] = {"restarts": 0}
            self._store(JOBSETS, jobset, "ADDED")
            if spec.get("suspend"):
                self._set_condition(jobset, "Suspended", "jobset is suspended")
            else:
                self._start_pods(jobset)
            return deepcopy(jobset)

    def patch_jobset(self, name: str, patch: Json) -> Json:
        """A merge patch of metadata."""
        with self.changed:
            jobset = self._objects[JOBSETS, name]
            jobset["metadata"] |= patch["metadata"]
            self._store(JOBSETS, jobset)
            return deepcopy(jobset)

    def delete_jobset(self, name: str) -> None:
        """In the foreground: it goes when its pods are gone."""
        with self.changed:
            jobset = self._objects[JOBSETS, name]
            jobset["metadata"] |= {"deletionTimestamp": now()}
            self._store(JOBSETS, jobset)
            self._delete_pods(name)
            self._reconcile(name)

    def admit(self, name: str) -> None:
        """Resume a suspended JobSet: Kueue's part."""
        with self.changed:
            jobset = self._objects[JOBSETS, name]
            jobset["spec"]["suspend"] = False
            jobset["status"]["conditions"] = []
            self._store(JOBSETS, jobset)
            self._start_pods(jobset)

    # The JobSet and Job controllers' part.

    def _start_pods(self, jobset: Json) -> None:
        name, attempt = jobset["metadata"]["name"], jobset["status"]["restarts"]
        (replicated,) = jobset["spec"]["replicatedJobs"]
        job = replicated["template"]["spec"]
        hosts = [f"{name}-{replicated['name']}-0-{rank}" for rank in range(job["completions"])]
        ports = dict(zip((f"{host}.{name}" for host in hosts), free_ports(len(hosts)), strict=True))
        for rank, host in enumerate(hosts):
            index = {"batch.kubernetes.io/job-completion-index": str(rank)}
            labels = {
                "jobset.sigs.k8s.io/jobset-name": name,
                "jobset.sigs.k8s.io/restart-attempt": str(attempt),
            }
            number = next(self._numbers)
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{host}-{number:05d}",
                    "uid": f"uid-{number}",
                    "labels": labels | index,
                    "annotations": index,
                },
                "spec": deepcopy(job["template"]["spec"]) | {"hostname": host, "subdomain": name},
                "status": {"phase": "Pending"},
            }
            self._store(PODS, pod, "ADDED")
            if self.full:
                self._set_unschedulable(pod)
            else:
                self._run(pod, ports)
        self._reconcile(name)

    def _set_unschedulable(self, pod: Json) -> None:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        pod["status"]["conditions"] = [condition | {"message": self.full}]
        self._store(PODS, pod)

    def pods_of(self, name: str) -> list[Json]:
        """The pods of a JobSet, by rank."""
        label = "jobset.sigs.k8s.io/jobset-name"
        return [
            pod for pod in self.all(PODS) if pod["metadata"].get("labels", {}).get(label) == name
        ]

    def _delete_pods(self, name: str, keep: str = "") -> None:
        for pod in self.pods_of(name):
            own = pod["metadata"]["name"]
            if own == keep or pod["metadata"].get("deletionTimestamp"):
                continue
            pod["metadata"]["deletionTimestamp"] = now()
            self._store(PODS, pod)
            container = self._containers.get(own)
            if container is not None and container.status is None:
                container.kill(signal.SIGKILL)  # its end removes the pod
            else:
                self._store(PODS, pod, "DELETED")

    def _reconcile(self, name: str) -> None:
        """What the controllers do when something about a JobSet has changed."""
        jobset, pods = self._objects.get((JOBSETS, name)), self.pods_of(name)
        if jobset is None:
            return
        if jobset["metadata"].get("deletionTimestamp"):
            if not pods:
                self._store(JOBSETS, jobset, "DELETED")
            return
        if jobset["status"].get("terminalState"):
            return
        phases = [pod["status"]["phase"] for pod in pods]
        if not pods:  # of the attempt before none is left
            self._start_pods(jobset)
        elif "Failed" in phases:
            self._fail(jobset, pods[phases.index("Failed")])
        elif set(phases) == {"Succeeded"}:
            self._set_condition(jobset, "Completed", "jobset completed successfully")
        else:
            leaving = any(pod["metadata"].get("deletionTimestamp") for pod in pods)
            ready = int(set(phases) == {"Running"} and not leaving)
            jobset["status"]["replicatedJobsStatus"] = [{"name": "worker", "ready": ready}]
            self._store(JOBSETS, jobset)

    def _fail(self, jobset: Json, pod: Json) -> None:
        """A pod has failed, and with it its Job: start all again, or give up."""
        policy, status = jobset["spec"]["failurePolicy"], jobset["status"]
        job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
        reason = "PodFailurePolicy" if _ends_job(job, pod) else "BackoffLimitExceeded"
        actions = [
            rule["action"] for rule in policy["rules"] if reason in rule["onJobFailureReasons"]
        ]
        if "FailJobSet" in actions:
            self._delete_pods(jobset["metadata"]["name"], pod["metadata"]["name"])
            self._set_condition(jobset, "Failed", "applying FailJobSet failure policy action")
        elif status["restarts"] >= policy["maxRestarts"]:
            self._delete_pods(jobset["metadata"]["name"], pod["metadata"]["name"])
            message = "jobset failed due to reaching max number of restarts"
            self._set_condition(jobset, "Failed", message)
        else:
            status["restarts"] += 1
            status["replicatedJobsStatus"] = [{"name": "worker", "ready": 0}]
            self._store(JOBSETS, jobset)
            self._delete_pods(jobset["metadata"]["name"])
            self._reconcile(jobset["metadata"]["name"])

    def _set_condition(self, jobset: Json, kind: str, message: str) -> None:
        condition = {"type": kind, "status": "True", "message": message, "reason": kind}
        jobset["status"].setdefault("conditions", []).append(condition)
        if kind != "Suspended":
            jobset["status"]["terminalState"] = kind
        self._store(JOBSETS, jobset)

    # The kubelet's part

    def _run(self, pod: Json, ports: Mapping[str, int]) -> None:
        pod["status"] = {"phase": "Running"}
        name = pod["metadata"]["name"]
        container = Container(pod, ports, lambda status: self._ended(name, status))
        self._containers[name] = container
        self._store(PODS, pod)
        container.start()

    def _ended(self, name: str, status: int) -> None:
        with self.changed:
            pod = self._objects.get((PODS, name))
            if pod is None:  # was deleted meanwhile
                return
            container = self._containers[name]
            code = 128 - status if status < 0 else status
            reason = container.reason or ("Error" if code else "Completed")
            end = {"exitCode": code, "reason": reason, "finishedAt": now()}
            state = {"name": container.name, "state": {"terminated": end}, "ready": False}
            state |= {"restartCount": 0, "image": container.image, "imageID": container.image}
            if pod["status"]["phase"] != "Failed":  # else evicted
                pod["status"] = {
                    "phase": "Failed" if code else "Succeeded",
                    "containerStatuses": [state],
                }
            gone = pod["metadata"].get("deletionTimestamp")
            self._store(PODS, pod, "DELETED" if gone else "MODIFIED")
            self._reconcile(pod["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-name"])

    def container(self, pod: str) -> "Container":
        return self._containers[pod]

    def kill(self, name: str, rank: int, reason: str = "") -> None:
        """Kill a worker of a JobSet, for a reason such as OOMKilled."""
        container = self._containers[self.pods_of(name)[rank]["metadata"]["name"]]
        container.reason = reason
        container.kill(signal.SIGKILL)

    def evict(self, name: str, rank: int, message: str) -> None:
        """End a worker as a kubelet does that runs out of something: no word of its container."""
        with self.changed:
            pod = self.pods_of(name)[rank]
            pod["status"] = {"phase": "Failed", "reason": "Evicted", "message": message}
            self._store(PODS, pod)
            self._containers[pod["metadata"]["name"]].kill(signal.SIGKILL)
            self._reconcile(name)

    def close(self) -> None:
        for container in self._containers.values():
            container.kill(signal.SIGKILL)
            container.join()


class Container:
    """A pod's one container: a process in a group of its own, and its log."""

    def __init__(self, pod: Json, ports: Mapping[str, int], ended: Callable[[int], None]) -> None:
        (spec,) = pod["spec"]["containers"]
        self.name, self.image = spec["name"], spec["image"]
        self.reason = ""
        self.lines: list[tuple[str, str]] = []  # when, what
        self.status: int | None = None
        self.grown = threading.Condition()
        self._ended = ended
        self.environment = _environment(spec["env"], pod, ports)
        self.process = subprocess.Popen(
            [*spec["command"], *spec["args"]],
            env={**os.environ, **self.environment},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        self._thread = threading.Thread(target=self._read)

    def start(self) -> None:
        """Keep its log, and tell of its end."""
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self.grown:
                    self.lines.append((now(), line.rstrip("\n")))
                    self.grown.notify_all()
        status = self.process.wait()
        with self.grown:
            self.status = status
            self.grown.notify_all()
        self._ended(status)

    def follow(self) -> Iterator[tuple[str, str]]:
        """Its log's lines to the last, as they come."""
        for number in itertools.count():
            with self.grown:
                while len(self.lines) <= number and self.status is None:
                    self.grown.wait()
                if len(self.lines) <= number:
                    return
                line = self.lines[number]
            yield line

    def kill(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # reaped meanwhile by its own thread
                os.killpg(self.process.pid, number)

    def join(self) -> None:
        if self._thread.is_alive():
            self._thread.join()


def now() -> str:
    """RFC 3339, as the API has it, but for logs finer."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _environment(variables: list[Json], pod: Json, ports: Mapping[str, int]) -> Mapping[str, str]:
    """Variables as a kubelet sets them; hosts are found as by DNS, but at ports of their own."""
    found: dict[str, str] = {}
    for variable in variables:
        if "valueFrom" in variable:
            path = variable["valueFrom"]["fieldRef"]["fieldPath"]
            match = re.fullmatch(r"metadata\.annotations\['(.+)'\]", path)
            assert match is not None
            found[variable["name"]] = pod["metadata"]["annotations"][match[1]]
        else:
            found[variable["name"]] = re.sub(
                r"\$\((\w+)\)", lambda name: found.get(name[1], name[0]), variable["value"]
            )
    config = json.loads(found["TF_CONFIG"])
    config["cluster"]["worker"] = [
        f"127.0.0.1:{ports[address.rpartition(':')[0]]}" for address in config["cluster"]["worker"]
    ]
    return found | {"TF_CONFIG": json.dumps(config)}


def _ends_job(job: Json, pod: Json) -> bool:
    """Whether the Job's podFailurePolicy has it fail at once for how a pod ended."""
    for container in pod["status"].get("containerStatuses", ()):
        code = container["state"]["terminated"]["exitCode"]
        for rule in job["podFailurePolicy"]["rules"]:
            on = rule["onExitCodes"]
            if rule["action"] == "FailJob" and on["containerName"] == container["name"]:
                return bool(code in on["values"])
    return False
