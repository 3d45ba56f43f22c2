"""A Pachyderm through `python-pachyderm` 7.6.0, in an environment that has no `pachyderm-sdk`.

There `capstan load`, `status`, `logs`, `caption` and `fetch` work; `up` and `down` read specs,
which takes the SDK's message types.
"""

# mypy: disable-error-code="import-not-found, import-untyped"

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import Parse
from google.protobuf.wrappers_pb2 import BytesValue
from python_pachyderm import Client
from python_pachyderm.proto.v2.pfs import pfs_pb2 as pfs
from python_pachyderm.proto.v2.pfs.pfs_pb2_grpc import APIStub as FileStub
from python_pachyderm.proto.v2.pps import pps_pb2 as pps
from python_pachyderm.proto.v2.pps.pps_pb2_grpc import APIStub as PipelineStub
from python_pachyderm.proto.v2.version.versionpb.version_pb2_grpc import APIStub as VersionStub

from capstan.pachyderm.calls import atomically, is_commit_id, plain_state, unless_absent
from capstan.pachyderm.connection import ServerTarget
from capstan.pachyderm.server import (
    Change,
    Commit,
    File,
    LogFilter,
    LogLine,
    Pipeline,
    PipelineJob,
    Put,
)


class OldServer:
    """`capstan.pachyderm.server.Server`, as the messages that protoc makes."""

    def __init__(self, target: ServerTarget) -> None:
        self.project = target.project
        self._client = Client(
            target.host,
            target.port,
            auth_token=target.token,
            root_certs=target.certificates,
            tls=target.tls,
        )
        self._pfs = FileStub(self._client._channel)
        self._pps = PipelineStub(self._client._channel)
        self._in = pfs.Project(name=target.project)

    def close(self) -> None:
        self._client._channel.close()

    def check(self) -> None:
        VersionStub(self._client._channel).GetVersion(Empty())

    def repos(self) -> list[str]:
        request = pfs.ListRepoRequest(type="user", projects=[self._in])
        return [info.repo.name for info in self._pfs.ListRepo(request)]

    def create_repo(self, name: str) -> None:
        self._pfs.CreateRepo(pfs.CreateRepoRequest(repo=self._repo(name)))

    def delete_repo(self, name: str) -> None:
        self._pfs.DeleteRepo(pfs.DeleteRepoRequest(repo=self._repo(name)))

    def pipelines(self) -> list[Pipeline]:
        request = pps.ListPipelineRequest(projects=[self._in], details=True)
        return [_pipeline(info) for info in self._pps.ListPipeline(request)]

    def put_pipeline(self, spec: str, *, update: bool, reprocess: bool, dry_run: bool) -> None:
        request = Parse(spec, pps.CreatePipelineRequest())
        request.update, request.reprocess, request.dry_run = update, reprocess, dry_run
        self._pps.CreatePipeline(request)

    def delete_pipeline(self, name: str) -> None:
        self._pps.DeletePipeline(pps.DeletePipelineRequest(pipeline=self._named(name)))

    def job(self, pipeline: str) -> PipelineJob | None:
        request = pps.ListJobRequest(pipeline=self._named(pipeline), number=1)
        return next((_job(info) for info in self._pps.ListJob(request)), None)

    def wait_job(self, pipeline: str, id: str) -> PipelineJob | None:
        job = pps.Job(pipeline=self._named(pipeline), id=id)
        request = pps.InspectJobRequest(job=job, wait=True)
        info = unless_absent(lambda: self._pps.InspectJob(request))
        return info and _job(info)

    def logs(self, wanted: LogFilter) -> Iterator[LogLine]:
        pipeline = self._named(wanted.pipeline)
        request = pps.GetLogsRequest(pipeline=pipeline, follow=wanted.follow, tail=wanted.tail)
        if wanted.job:
            request.job.CopyFrom(pps.Job(pipeline=pipeline, id=wanted.job))
        for line in self._pps.GetLogs(request):
            if line.user or wanted.everything:
                yield LogLine(_time(line.ts), line.worker_id, line.datum_id, line.message.rstrip())

    def commit(self, repo: str, name: str = "master") -> Commit | None:
        whole = self._repo(repo)
        branch = None if is_commit_id(name) else pfs.Branch(repo=whole, name=name)
        commit = pfs.Commit(repo=whole, id="" if branch else name, branch=branch)
        request = pfs.InspectCommitRequest(commit=commit)
        info = unless_absent(lambda: self._pfs.InspectCommit(request))
        return info and _commit(info)

    def wait_commit(self, commit: Commit) -> Commit:
        request = pfs.InspectCommitRequest(commit=self._commit(commit), wait=pfs.FINISHED)
        return _commit(self._pfs.InspectCommit(request))

    def files(self, commit: Commit, path: str = "/") -> Iterator[File]:
        request = pfs.WalkFileRequest(file=pfs.File(commit=self._commit(commit), path=path))
        try:
            for info in self._pfs.WalkFile(request):
                if info.file_type == pfs.FILE:
                    yield File(info.file.path, info.size_bytes, info.hash)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise

    def read(self, commit: Commit, path: str) -> Iterator[bytes]:
        request = pfs.GetFileRequest(file=pfs.File(commit=self._commit(commit), path=path))
        return (message.value for message in self._pfs.GetFile(request))

    def modify(self, repo: str, changes: Iterable[Change]) -> None:
        whole = self._repo(repo)
        head = pfs.Commit(repo=whole, branch=pfs.Branch(repo=whole, name="master"))
        atomically(self._pfs.ModifyFile, pfs.ModifyFileRequest(set_commit=head), _requests(changes))

    def _repo(self, name: str) -> pfs.Repo:
        return pfs.Repo(name=name, type="user", project=self._in)

    def _named(self, pipeline: str) -> pps.Pipeline:
        return pps.Pipeline(name=pipeline, project=self._in)

    def _commit(self, commit: Commit) -> pfs.Commit:
        return pfs.Commit(repo=self._repo(commit.repo), id=commit.id)


def _requests(changes: Iterable[Change]) -> Iterator[pfs.ModifyFileRequest]:
    for change in changes:
        yield pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=change.path))
        for piece in chain((b"",), change.pieces) if isinstance(change, Put) else ():
            file = pfs.AddFile(path=change.path, raw=BytesValue(value=piece))
            yield pfs.ModifyFileRequest(add_file=file)


def _time(value: Any) -> datetime | None:
    return datetime.fromtimestamp(value.ToMicroseconds() / 1e6, UTC) if value.seconds else None


def _commit(info: Any) -> Commit:
    return Commit(
        info.commit.repo.name,
        info.commit.id,
        open=not info.HasField("finishing"),
        finished=info.HasField("finished"),
        error=info.error,
        parent=info.parent_commit.id,
    )


def _pipeline(info: Any) -> Pipeline:
    state = plain_state(pps.PipelineState.Name(info.state))
    repos = tuple(dict.fromkeys(_repos(info.details.input)))
    return Pipeline(info.pipeline.name, info.version, state, info.reason, "", repos)


def _repos(tree: Any) -> Iterator[str]:
    yield from filter(None, (tree.pfs.repo, tree.cron.repo))
    for branch in (*tree.join, *tree.group, *tree.cross, *tree.union):
        yield from _repos(branch)


def _job(info: Any) -> PipelineJob:
    return PipelineJob.of(info, plain_state(pps.JobState.Name(info.state)), _time)
