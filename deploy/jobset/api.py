"""What the launcher asks of the Kubernetes API: calls that try again, errors with their cure."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import yaml
from lightkube import Client
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig
from lightkube.core.decoders import decode_status, decode_watch_event
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.types import CascadeType, PatchType
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from capstan.deploy.jobset.jobset import API_VERSION, KIND, NAME_LABEL, Json
from capstan.errors import CapstanError, SettingError

logger = logging.getLogger(__name__)

GROUP, VERSION = API_VERSION.split("/")
JobSet = create_namespaced_resource(GROUP, VERSION, KIND, "jobsets")
Pod = create_namespaced_resource("", "v1", "Pod", "pods")  # lightkube's own is slow and strict

KUBECONFIG = "KUBECONFIG"
MALFORMED = (AttributeError, KeyError, TypeError, ValueError)  # as lightkube says so
UNUSABLE = (ConfigError, OSError, yaml.YAMLError, msgspec.MsgspecError, *MALFORMED)
NOT_FOUND, CONFLICT, GONE = 404, 409, 410
PASSING = {408, 429, 500, 502, 503, 504}
PATIENCE = 120.0  # seconds that a call is tried
WATCH_SECONDS = 300  # then the server ends a watch, and it is asked for again
WATCH_PAUSE = 1.0  # seconds before a watch that broke off is asked for again


class Api:
    """The JobSets and pods of one namespace: the pod's own, or that of kubectl's context."""

    def __init__(self, patience: float = PATIENCE, account: str = SERVICE_ACCOUNT) -> None:
        """SettingError when there is no cluster to ask; `account` is where a pod has its token."""
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells of every request
        try:
            self._client = Client(_configuration(account))
        except UNUSABLE as error:
            raise SettingError(
                f"no Kubernetes to ask ({error}); run this in a pod with a service account, or "
                f"name a cluster with {KUBECONFIG}"
            ) from error
        self._patience = patience
        _ready_types()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _call(self, call: Callable[[], Any], excused: Sequence[int] = ()) -> Any:
        """What a call returns, None for statuses that are an answer too."""
        trying = Retrying(
            retry=retry_if_exception(_passes),
            wait=wait_random_exponential(max=10),
            stop=stop_after_delay(self._patience),
            before_sleep=self._tell,
            reraise=True,
        )
        with self._plain_errors():
            try:
                return trying(call)
            except httpx2.HTTPStatusError as error:
                if _code(error) not in excused:
                    raise
                return None

    def _tell(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            why = " ".join(str(state.outcome.exception()).split())
            logger.warning(
                "Kubernetes: %s; trying again for %.0f seconds at most", why, self._patience
            )

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn errors of the API into CapstanError, with the cure."""
        try:
            yield
        except httpx2.HTTPError as error:
            namespace = self._client.namespace
            raise CapstanError(f"Kubernetes, namespace {namespace}: {_explain(error)}") from error

    def create(self, jobset: Json) -> bool:
        """Make a JobSet; False where one of its name is there."""
        resource = JobSet.from_dict(jobset)
        return self._call(lambda: self._client.create(resource), [CONFLICT]) is not None

    def get(self, name: str) -> Json | None:
        """A JobSet, None where there is none."""
        found: Json | None = self._call(lambda: self._client.get(JobSet, name), [NOT_FOUND])
        return found

    def own(self, name: str, owners: Sequence[Mapping[str, str]]) -> None:
        """Give a JobSet its owners, with whom it is deleted."""
        patch = {"metadata": {"ownerReferences": [dict(owner) for owner in owners]}}
        self._call(lambda: self._client.patch(JobSet, name, patch, patch_type=PatchType.MERGE))

    def delete(self, name: str) -> None:
        """Delete a JobSet as soon as its pods are gone; does not wait for that."""
        cascade = CascadeType.FOREGROUND
        self._call(lambda: self._client.delete(JobSet, name, cascade=cascade), [NOT_FOUND])

    def watch(self, name: str) -> Iterator[Json | None]:
        """A JobSet as it is and each time it changes, None when it is deleted; without end."""
        for event, jobset in self._watch(JobSet, fields={"metadata.name": name}):
            yield None if event == "DELETED" else jobset

    def watch_pods(self, name: str) -> Iterator[Json]:
        """The pods of a JobSet as they are and each time one changes; without end."""
        for _, pod in self._watch(Pod, labels={NAME_LABEL: name}):
            yield pod

    def _watch(self, resource: Any, **selector: Any) -> Iterator[tuple[str, Any]]:
        """Where a watch breaks off (410 Gone, a connection lost) it begins anew with what is there.

        CapstanError for what no new try mends.
        """
        while True:
            try:
                with self._plain_errors():
                    yield from self._client.watch(
                        resource, server_timeout=WATCH_SECONDS, **selector
                    )
            except msgspec.DecodeError as error:  # of a line that was cut off
                logger.debug("watch: %s", error)
            except CapstanError as error:
                if _code(error.__cause__) not in {None, GONE, *PASSING}:
                    raise
                logger.debug("watch: %s", error)
            time.sleep(WATCH_PAUSE)

    def pods(self, name: str) -> list[Json]:
        """The pods of a JobSet."""
        listed = self._client.list
        return list(self._call(lambda: list(listed(Pod, labels={NAME_LABEL: name}))))

    def pod(self, name: str) -> Json | None:
        """One pod, None where there is none."""
        found: Json | None = self._call(lambda: self._client.get(Pod, name), [NOT_FOUND])
        return found

    def log(self, pod: str, container: str) -> Iterator[tuple[str, str]]:
        """A container's log from its begin to its end: when (RFC 3339), and the line.

        CapstanError also where the connection breaks off before.
        """
        with self._plain_errors():
            for line in self._client.log(
                pod, container=container, follow=True, timestamps=True, newlines=False
            ):
                when, _, text = line.partition(" ")
                yield when, text


def _ready_types() -> None:
    """Decode lightkube's types once: msgspec 0.22 crashes where two threads do it first at once."""
    decode_watch_event(b'{"type": "", "object": {}}')
    decode_status(b"{}")
    _ = JobSet.from_dict({"metadata": {}}).metadata


def _configuration(account: str) -> KubeConfig:
    """As kubectl finds it: KUBECONFIG, a pod's service account, ~/.kube/config."""
    if named := os.environ.get(KUBECONFIG):
        return KubeConfig.from_file(Path(named))
    return KubeConfig.from_env(service_account=account)


def _explain(error: httpx2.HTTPError) -> str:
    said = " ".join(str(error).split()).partition(" For more information")[0]
    cures = {
        None: f"nothing answers as it should ({said}); check its address",
        401: f"{said}; the service account's token, or kubectl's, is not accepted",
        403: f"{said}; grant that: deploy/kubernetes/base/training has the rights and to whom",
        404: f"{said}; is JobSet ({API_VERSION}) installed there?",
    }
    return cures.get(_code(error), said)


def _code(error: BaseException | None) -> int | None:
    """HTTP status, None where none came."""
    if isinstance(error, ApiError):
        return error.status.code
    return error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else None


def _passes(error: BaseException) -> bool:
    """Whether another try may do; a certificate that is not trusted stays so."""
    lost = isinstance(error, httpx2.TransportError) and "CERTIFICATE_VERIFY" not in str(error)
    return lost or _code(error) in PASSING
