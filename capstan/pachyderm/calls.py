"""What calls of Pachyderm have in common, by whichever client: errors, streams, names."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from capstan.errors import CapstanError
from capstan.pachyderm.connection import CERTIFICATES, TOKEN, ServerTarget


@contextmanager
def plain_errors(target: ServerTarget) -> Iterator[None]:
    """Turn errors of gRPC into CapstanError, with the cure."""
    logging.getLogger("grpc").setLevel(logging.CRITICAL)  # it logs what is raised, with tracebacks
    try:
        yield
    except (grpc.RpcError, ConnectionError) as error:  # the SDK has both
        cause = error if isinstance(error, grpc.Call) else error.__cause__
        code = cause.code() if isinstance(cause, grpc.Call) else None
        details = cause.details() if isinstance(cause, grpc.Call) else error
        raise CapstanError(_explain(target, code, " ".join(str(details).split()))) from error


def _explain(target: ServerTarget, code: Any, details: str) -> str:
    other = "grpc" if target.tls else "grpcs"
    cures = {
        grpc.StatusCode.UNAVAILABLE: f"nothing answers as it should ({details}); is Pachyderm up, "
        f"the address right, and TLS ({other}:// is the other way)? `pachctl port-forward` "
        "brings a cluster's to localhost:30650",
        grpc.StatusCode.UNIMPLEMENTED: f"no Pachyderm 2 ({details}); check --address",
        grpc.StatusCode.UNAUTHENTICATED: f"{details}; `pachctl auth login`, or give a token with "
        f"--token-file or {TOKEN}",
        grpc.StatusCode.PERMISSION_DENIED: f"{details}; ask for that role",
    }
    if "certificate" in details.lower():
        why = f"its certificate is not trusted ({details}); give its authority's with --ca or "
        return f"{target}: {why}{CERTIFICATES}"
    if "try logging in" in details:
        code = grpc.StatusCode.UNAUTHENTICATED
    if "is not authorized" in details:
        code = grpc.StatusCode.PERMISSION_DENIED
    return f"{target}, project {target.project}: {cures.get(code, details)}"


def atomically(send: Callable[[Iterator[Any]], Any], first: Any, requests: Iterator[Any]) -> None:
    """Stream requests to ModifyFile; what they raise is raised here, and nothing is published."""
    failures: list[Exception] = []

    def stream() -> Iterator[Any]:  # runs in a thread of gRPC's
        yield first
        try:
            yield from requests
        except Exception as error:
            failures.append(error)
            raise  # which cancels the call

    try:
        send(stream())
    except grpc.RpcError as error:
        if failures:
            raise failures[0] from error
        raise


def unless_absent(ask: Callable[[], Any]) -> Any:
    """What `ask` returns, None where the server says NOT_FOUND."""
    try:
        return ask()
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return None
        raise


def is_commit_id(name: str) -> bool:
    """Whether this is a commit's id and not the name of a branch."""
    return re.fullmatch("[0-9a-f]{32}", name) is not None


def plain_state(name: str) -> str:
    """`running` of PIPELINE_RUNNING, JOB_RUNNING and the like."""
    return re.sub("^(PIPELINE|JOB)_(STATE_)?", "", name).lower()
