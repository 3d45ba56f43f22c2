"""The part of a Pachyderm that reads: commits, what they were made of, their files. At the wire.

After a server of 2.12 that was asked the same: what is not there is NOT_FOUND, a commit that is
not finished has no `finished`, and a pipeline's new commit has the id of the one that caused it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import grpc
from betterproto.lib.google.protobuf import BytesValue
from pachyderm_sdk.api import pfs

from capstan.files import data_files

MADE_OF: dict[str, tuple[str, ...]] = {
    "rawdata": (),
    "images": ("rawdata",),
    "features": ("images",),
    "consolidate": ("rawdata", "features"),
    "model": ("consolidate",),
    "inpredict": (),
    "predict": ("model", "inpredict"),
}
ID = {repo: UUID(int=number, version=4).hex for number, repo in enumerate(MADE_OF)}
PIECE = 1000  # bytes of a file in one message


class Pachd:
    """Serves folders of repos as the commits of one load, in project `photos`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._ids = ID

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(4))
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods = {
            "InspectCommit": (unary, self._inspect_commit, pfs.InspectCommitRequest),
            "GetFile": (stream, self._get_file, pfs.GetFileRequest),
            "WalkFile": (stream, self._walk_file, pfs.WalkFileRequest),
        }
        handlers = {
            name: make(method, request.FromString, lambda reply: reply.SerializeToString())
            for name, (make, method, request) in methods.items()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("pfs_v2.API", handlers),)
        )
        self.address = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def _commit(self, repo: str, id: str = "") -> pfs.Commit:
        project = pfs.Project(name="photos")
        whole = pfs.Repo(name=repo, type="user", project=project)
        return pfs.Commit(repo=whole, id=id or self._ids[repo])

    def _inspect_commit(self, request: pfs.InspectCommitRequest, context: Any) -> pfs.CommitInfo:
        commit = request.commit
        repo, id, branch = commit.repo.name, commit.id, commit.branch.name if commit.branch else ""
        if repo not in MADE_OF or commit.repo.project.name != "photos":
            context.abort(grpc.StatusCode.NOT_FOUND, f"repo {repo} not found")
        if not id and branch != "master":
            context.abort(grpc.StatusCode.NOT_FOUND, f"branch {branch} not found")
        if repo == "model" and not id:  # still at work
            return pfs.CommitInfo(
                commit=self._commit(repo, "f" * 32), parent_commit=self._commit(repo)
            )
        if id not in ("", self._ids[repo]):
            context.abort(grpc.StatusCode.NOT_FOUND, f"commit {id} not found")
        provenance = [self._commit(each) for each in MADE_OF[repo]]
        finished = datetime(2026, 1, 1, tzinfo=UTC)
        if repo == "predict" and not id:  # failed, and there was none before
            return pfs.CommitInfo(
                commit=self._commit(repo), finished=finished, error="a datum failed"
            )
        return pfs.CommitInfo(
            commit=self._commit(repo), finished=finished, direct_provenance=provenance
        )

    def _path(self, file: pfs.File, context: Any) -> Path:
        repo = file.commit.repo.name
        if file.commit.id != self._ids.get(repo):
            context.abort(grpc.StatusCode.NOT_FOUND, f"commit {file.commit.id} not found")
        return self._root.joinpath(repo, file.path.lstrip("/"))

    def _get_file(self, request: pfs.GetFileRequest, context: Any) -> Iterator[BytesValue]:
        path = self._path(request.file, context)
        if not path.is_file():
            context.abort(grpc.StatusCode.NOT_FOUND, f"file {request.file.path} not found")
        data = path.read_bytes()
        for start in range(0, len(data), PIECE):
            yield BytesValue(value=data[start : start + PIECE])

    def _walk_file(self, request: pfs.WalkFileRequest, context: Any) -> Iterator[pfs.FileInfo]:
        root = self._path(request.file, context)
        commit = request.file.commit
        yield pfs.FileInfo(file=pfs.File(commit=commit, path="/"), file_type=pfs.FileType.DIR)
        for path in data_files(root):
            file = pfs.File(commit=commit, path=f"/{path.relative_to(root).as_posix()}")
            yield pfs.FileInfo(file=file, file_type=pfs.FileType.FILE)
