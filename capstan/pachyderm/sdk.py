"""A Pachyderm through `pachyderm-sdk`."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any

import grpc
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

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


class SdkServer:
    """`capstan.pachyderm.server.Server`, as the SDK's messages."""

    def __init__(self, target: ServerTarget) -> None:
        self.project = target.project
        self._client = Client(
            target.host,
            target.port,
            auth_token=target.token,
            root_certs=target.certificates,
            tls=target.tls,
        )
        self._in = pfs.Project(name=target.project)

    def close(self) -> None:
        self._client._channel.close()  # the SDK has no way to; ends what is under way

    def check(self) -> None:
        self._client.get_version()

    def repos(self) -> list[str]:
        listed = self._client.pfs.list_repo(projects=[self._in], type="user")
        return [info.repo.name for info in listed]

    def create_repo(self, name: str) -> None:
        self._client.pfs.create_repo(repo=self._repo(name))

    def delete_repo(self, name: str) -> None:
        self._client.pfs.delete_repo(repo=self._repo(name))

    def pipelines(self) -> list[Pipeline]:
        return [_pipeline(info) for info in self._client.pps.list_pipeline(projects=[self._in])]

    def put_pipeline(self, spec: str, *, update: bool, reprocess: bool, dry_run: bool) -> None:
        self._client.pps.create_pipeline_v2(
            create_pipeline_request_json=spec, update=update, reprocess=reprocess, dry_run=dry_run
        )

    def delete_pipeline(self, name: str) -> None:
        self._client.pps.delete_pipeline(pipeline=self._pipeline(name))

    def job(self, pipeline: str) -> PipelineJob | None:
        jobs = self._client.pps.list_job(pipeline=self._pipeline(pipeline), number=1)
        return next((_job(info) for info in jobs), None)

    def wait_job(self, pipeline: str, id: str) -> PipelineJob | None:
        job = pps.Job(pipeline=self._pipeline(pipeline), id=id)
        info = unless_absent(lambda: self._client.pps.inspect_job(job=job, wait=True))
        return info and _job(info)

    def logs(self, wanted: LogFilter) -> Iterator[LogLine]:
        pipeline = self._pipeline(wanted.pipeline)
        which = {"job": pps.Job(pipeline=pipeline, id=wanted.job)} if wanted.job else {}
        for line in self._client.pps.get_logs(
            pipeline=pipeline, follow=wanted.follow, tail=wanted.tail, **which
        ):
            if line.user or wanted.everything:
                yield LogLine(
                    _time(line.ts), line.worker_id, line.datum_id, line.message.rstrip("\n")
                )

    def commit(self, repo: str, name: str = "master") -> Commit | None:
        whole = self._repo(repo)
        branch = None if is_commit_id(name) else pfs.Branch(repo=whole, name=name)
        commit = pfs.Commit(repo=whole, id="" if branch else name, branch=branch)
        info = unless_absent(lambda: self._client.pfs.inspect_commit(commit=commit))
        return info and _commit(info)

    def wait_commit(self, commit: Commit) -> Commit:
        return _commit(self._client.pfs.wait_commit(self._commit(commit)))

    def files(self, commit: Commit, path: str = "/") -> Iterator[File]:
        walked = self._client.pfs.walk_file(file=pfs.File(commit=self._commit(commit), path=path))
        try:
            for info in walked:
                if info.file_type == pfs.FileType.FILE:
                    yield File(info.file.path, info.size_bytes, bytes(info.hash))
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise

    def read(self, commit: Commit, path: str) -> Iterator[bytes]:
        file = pfs.File(commit=self._commit(commit), path=path)
        return (message.value for message in self._client.pfs.get_file(file=file))

    def modify(self, repo: str, changes: Iterable[Change]) -> None:
        whole = self._repo(repo)
        head = pfs.Commit(repo=whole, branch=pfs.Branch(repo=whole, name="master"))
        first = pfs.ModifyFileRequest(set_commit=head)
        atomically(self._client.pfs.modify_file, first, _requests(changes))

    def _repo(self, name: str) -> pfs.Repo:
        return pfs.Repo(name=name, type="user", project=self._in)

    def _pipeline(self, name: str) -> pps.Pipeline:
        return pps.Pipeline(name=name, project=self._in)

    def _commit(self, commit: Commit) -> pfs.Commit:
        return pfs.Commit(repo=self._repo(commit.repo), id=commit.id)


def _requests(changes: Iterable[Change]) -> Iterator[pfs.ModifyFileRequest]:
    for change in changes:
        yield pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=change.path))
        # The first piece says that there is a file, be it an empty one.
        for piece in chain((b"",), change.pieces) if isinstance(change, Put) else ():
            yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path=change.path, raw=piece))


def _commit(info: pfs.CommitInfo) -> Commit:
    return Commit(
        info.commit.repo.name,
        info.commit.id,
        open=_time(info.finishing) is None,
        finished=_time(info.finished) is not None,
        error=info.error,
        parent=info.parent_commit.id if info.parent_commit else "",
    )


def _time(value: datetime | None) -> datetime | None:
    """A time, None where the message has none, for which the SDK puts 1970."""
    return value if value and value.timestamp() else None


def _pipeline(info: pps.PipelineInfo) -> Pipeline:
    return Pipeline(
        info.pipeline.name,
        info.version,
        plain_state(pps.PipelineState(info.state).name or ""),
        info.reason,
        info.user_spec_json,
        tuple(dict.fromkeys(_repos(info.details.input))),
    )


def _repos(tree: Any) -> Iterator[str]:
    """The repos that an input names."""
    if not tree:
        return
    for leaf in (tree.pfs, tree.cron):
        if leaf and leaf.repo:
            yield leaf.repo
    for branch in (*tree.join, *tree.group, *tree.cross, *tree.union):
        yield from _repos(branch)


def _job(info: pps.JobInfo) -> PipelineJob:
    return PipelineJob.of(info, plain_state(pps.JobState(info.state).name or ""), _time)
