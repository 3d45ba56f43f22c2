"""A Pachyderm at the wire, without workers: repos, commits, files, pipelines, jobs and logs.

Answers as a server of 2.12 does that was asked the same: what is not there is NOT_FOUND, unknown
fields of specs are refused, a ModifyFile to a branch is one commit or, if its stream breaks, none.
"""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Self

import grpc
from betterproto.lib.google.protobuf import BytesValue, Empty
from pachyderm_sdk.api import pfs, pps, version

TIME = datetime(2026, 1, 1, tzinfo=UTC)
PIECE = 1000  # bytes of a file in one message
Files = dict[str, bytes]


def digest(data: bytes) -> bytes:
    """BLAKE2b of 256 bits."""
    return blake2b(data, digest_size=32).digest()


@dataclass
class Version:
    """A commit and all its files."""

    id: str
    files: Files
    parent: str = ""
    error: str = ""
    open: bool = False


@dataclass
class Made:
    """A pipeline, and its jobs, the newest last."""

    spec: str
    version: int = 1
    state: pps.PipelineState = pps.PipelineState.PIPELINE_RUNNING
    reason: str = ""
    jobs: list[pps.JobInfo] = field(default_factory=list)
    logs: list[pps.LogMessage] = field(default_factory=list)


class Pachd:
    """Serves one project, `photos`. Tests look at and change what it holds."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.repos: dict[str, list[Version]] = {}
        self.pipelines: dict[str, Made] = {}
        self.calls: list[str] = []
        self.streams: list[list[tuple[str, str, int]]] = []  # of ModifyFile: what, path, bytes
        self.received = 0  # messages of the newest stream
        self.token = ""  # what callers have to show
        self.refusal: dict[str, tuple[grpc.StatusCode, str]] = {}  # by method
        self.on_receive: Callable[[], None] = lambda: None
        self.on_commit: Callable[[str, str], None] = lambda repo, id: None
        self.on_call: Callable[[str], None] = lambda method: None
        self.broken = threading.Event()  # a stream broke off
        self.keep = True  # the bytes of files
        self.blocks = False  # whether hashes are of more than one block
        self._credentials = credentials

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(4))
        for service, methods in self._methods().items():
            handlers = {
                name: make(
                    self._guarded(name, method),
                    request_deserializer=request.FromString,
                    response_serializer=lambda reply: reply.SerializeToString(),
                )
                for name, (make, method, request) in methods.items()
            }
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, handlers),)
            )
        secured = self._credentials is not None
        port = (
            self._server.add_secure_port("127.0.0.1:0", self._credentials)
            if secured
            else self._server.add_insecure_port("127.0.0.1:0")
        )
        self.address = f"grpc{'s' if secured else ''}://localhost:{port}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def _methods(self) -> dict[str, dict[str, Any]]:
        one, many = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        stream = grpc.stream_unary_rpc_method_handler
        return {
            "versionpb_v2.API": {"GetVersion": (one, self._version, Empty)},
            "pfs_v2.API": {
                "ListRepo": (many, self._list_repo, pfs.ListRepoRequest),
                "CreateRepo": (one, self._create_repo, pfs.CreateRepoRequest),
                "DeleteRepo": (one, self._delete_repo, pfs.DeleteRepoRequest),
                "InspectCommit": (one, self._inspect_commit, pfs.InspectCommitRequest),
                "WalkFile": (many, self._walk_file, pfs.WalkFileRequest),
                "GetFile": (many, self._get_file, pfs.GetFileRequest),
                "ModifyFile": (stream, self._modify_file, pfs.ModifyFileRequest),
            },
            "pps_v2.API": {
                "ListPipeline": (many, self._list_pipeline, pps.ListPipelineRequest),
                "CreatePipelineV2": (one, self._create_pipeline, pps.CreatePipelineV2Request),
                "DeletePipeline": (one, self._delete_pipeline, pps.DeletePipelineRequest),
                "ListJob": (many, self._list_job, pps.ListJobRequest),
                "InspectJob": (one, self._inspect_job, pps.InspectJobRequest),
                "GetLogs": (many, self._get_logs, pps.GetLogsRequest),
            },
        }

    def _guarded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def answer(request: Any, context: Any) -> Any:
            self.calls.append(name)
            self.on_call(name)
            shown = dict(context.invocation_metadata()).get("authn-token", "")
            if shown != self.token:
                context.abort(
                    grpc.StatusCode.UNAUTHENTICATED, "no authentication token (try logging in)"
                )
            if name in self.refusal:
                context.abort(*self.refusal[name])
            return method(request, context)

        return answer

    # What tests put there

    def put(self, repo: str, files: Files, **more: Any) -> Version:
        """Make a commit of these files on top of those that are there."""
        versions = self.repos.setdefault(repo, [])
        before = versions[-1] if versions else None
        made = Version(
            more.pop("id", uuid.uuid4().hex),
            (before.files if before else {}) | files,
            before.id if before else "",
            **more,
        )
        versions.append(made)
        return made

    def files(self, repo: str) -> Files:
        """What the newest commit holds."""
        return self.repos[repo][-1].files

    def job(self, pipeline: str, id: str = "", **more: Any) -> None:
        """Add a job."""
        state = more.pop("state", pps.JobState.JOB_SUCCESS)
        self.pipelines[pipeline].jobs.append(
            pps.JobInfo(job=pps.Job(id=id or uuid.uuid4().hex), state=state, **more)
        )

    # pfs

    def _version(self, request: Empty, context: Any) -> version.Version:
        return version.Version(major=2, minor=12)

    def _list_repo(self, request: pfs.ListRepoRequest, context: Any) -> Iterator[pfs.RepoInfo]:
        if [project.name for project in request.projects] == ["photos"]:
            for name in self.repos:
                yield pfs.RepoInfo(repo=pfs.Repo(name=name, type="user"))

    def _create_repo(self, request: pfs.CreateRepoRequest, context: Any) -> Empty:
        if request.repo.project.name != "photos":
            context.abort(grpc.StatusCode.NOT_FOUND, "project not found")
        self.repos[request.repo.name] = []
        return Empty()

    def _delete_repo(self, request: pfs.DeleteRepoRequest, context: Any) -> pfs.DeleteRepoResponse:
        del self.repos[request.repo.name]
        return pfs.DeleteRepoResponse(deleted=True)

    def _find(self, commit: pfs.Commit, context: Any) -> Version:
        versions = self.repos.get(commit.repo.name, [])
        at_branch = not commit.id and commit.branch and commit.branch.name == "master"
        found = versions[-1:] if at_branch else [v for v in versions if v.id == commit.id]
        if commit.repo.project.name != "photos" or not found:
            context.abort(grpc.StatusCode.NOT_FOUND, f"commit {commit.id}\nnot found")
        return found[0]

    def _inspect_commit(self, request: pfs.InspectCommitRequest, context: Any) -> pfs.CommitInfo:
        repo, found = request.commit.repo, self._find(request.commit, context)
        info = pfs.CommitInfo(commit=pfs.Commit(repo=repo, id=found.id), error=found.error)
        if found.parent:
            info.parent_commit = pfs.Commit(repo=repo, id=found.parent)
        if not found.open:
            info.finishing = info.finished = TIME
        return info

    def _walk_file(self, request: pfs.WalkFileRequest, context: Any) -> Iterator[pfs.FileInfo]:
        top = request.file.path.rstrip("/")
        files = self._find(request.file.commit, context).files
        below = [path for path in sorted(files) if f"{path}/".startswith(f"{top}/")]
        if top and not below:
            context.abort(grpc.StatusCode.NOT_FOUND, f"file {top} not found")
        if top not in below:
            yield pfs.FileInfo(file=pfs.File(path=top or "/"), file_type=pfs.FileType.DIR)
        for path in below:
            data = files[path]
            hash = digest(b"blocks" + data) if self.blocks else digest(digest(data))
            yield pfs.FileInfo(
                file=pfs.File(path=path),
                file_type=pfs.FileType.FILE,
                size_bytes=len(data),
                hash=hash,
            )

    def _get_file(self, request: pfs.GetFileRequest, context: Any) -> Iterator[BytesValue]:
        data = self._find(request.file.commit, context).files[request.file.path]
        for start in range(0, len(data), PIECE):
            yield BytesValue(value=data[start : start + PIECE])

    def _modify_file(self, requests: Iterator[pfs.ModifyFileRequest], context: Any) -> Empty:
        first = next(requests).set_commit
        versions = self.repos[first.repo.name]
        stream: list[tuple[str, str, int]] = []
        self.streams.append(stream)
        self.received = 0
        files: dict[str, bytearray] = {
            path: bytearray(old) for path, old in (versions[-1].files if versions else {}).items()
        }
        try:
            for request in requests:
                self.received += 1
                self.on_receive()
                self._apply(request, files, stream)
        except grpc.RpcError:
            self.broken.set()
            raise
        made = Version(uuid.uuid4().hex, {}, versions[-1].id if versions else "")
        made.files = {path: bytes(content) for path, content in files.items()}
        versions.append(made)
        self._withdraw_if_cancelled(versions, made, context)
        self.on_commit(first.repo.name, made.id)
        return Empty()

    def _withdraw_if_cancelled(self, versions: list[Version], made: Version, context: Any) -> None:
        """To gRPC's Python a stream that breaks off may seem to end; it knows only afterwards."""

        def ended() -> None:
            if context._state.client == "cancelled":
                versions.remove(made)
                self.broken.set()

        if not context.add_callback(ended):
            ended()

    def _apply(
        self,
        request: pfs.ModifyFileRequest,
        files: dict[str, bytearray],
        stream: list[tuple[str, str, int]],
    ) -> None:
        if request.is_set("delete_file"):
            stream.append(("delete", request.delete_file.path, 0))
            files.pop(request.delete_file.path, None)
            return
        path, raw = request.add_file.path, bytes(request.add_file.raw or b"")
        stream.append(("add", path, len(raw)))
        files.setdefault(path, bytearray()).extend(raw if self.keep else b"")

    # pps

    def _list_pipeline(
        self, request: pps.ListPipelineRequest, context: Any
    ) -> Iterator[pps.PipelineInfo]:
        for name, made in self.pipelines.items():
            spec = pps.CreatePipelineRequest().from_json(made.spec)
            yield pps.PipelineInfo(
                pipeline=pps.Pipeline(name=name),
                version=made.version,
                state=made.state,
                reason=made.reason,
                user_spec_json=made.spec,
                details=pps.PipelineInfoDetails(input=spec.input),
            )

    def _create_pipeline(
        self, request: pps.CreatePipelineV2Request, context: Any
    ) -> pps.CreatePipelineV2Response:
        text = request.create_pipeline_request_json
        document = json.loads(text)
        name, known = document["pipeline"]["name"], pps.CreatePipelineRequest()._betterproto
        if unknown := set(document) - set(known.meta_by_field_name):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"proto: unknown field {unknown}")
        if (name in self.pipelines) != request.update:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"pipeline {name} already exists")
        if not request.dry_run:
            before = self.pipelines.get(name)
            self.pipelines[name] = Made(text, before.version + 1 if before else 1)
            self.repos.setdefault(name, [])
        return pps.CreatePipelineV2Response(effective_create_pipeline_request_json=text)

    def _delete_pipeline(self, request: pps.DeletePipelineRequest, context: Any) -> Empty:
        name = request.pipeline.name
        for other, made in self.pipelines.items():
            if f'"repo": "{name}"' in made.spec:
                context.abort(grpc.StatusCode.UNKNOWN, f"{name} is read by {other}")
        del self.pipelines[name], self.repos[name]
        return Empty()

    def _list_job(self, request: pps.ListJobRequest, context: Any) -> Iterator[pps.JobInfo]:
        yield from list(reversed(self.pipelines[request.pipeline.name].jobs))[: request.number]

    def _inspect_job(self, request: pps.InspectJobRequest, context: Any) -> pps.JobInfo:
        for info in self.pipelines[request.job.pipeline.name].jobs:
            if info.job.id == request.job.id:
                return info
        return context.abort(grpc.StatusCode.NOT_FOUND, f"job {request.job.id} not found")

    def _get_logs(self, request: pps.GetLogsRequest, context: Any) -> Iterator[pps.LogMessage]:
        lines = self.pipelines[request.pipeline.name].logs
        if request.job and request.job.id:
            lines = [line for line in lines if line.job_id == request.job.id]
        yield from lines[-request.tail :]
