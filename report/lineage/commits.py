"""The files of a run as Pachyderm's commits hold them: a commit and all those it was made of."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from capstan.errors import SettingError
from capstan.files import atomic_write
from capstan.pachyderm.calls import plain_errors
from capstan.pachyderm.connection import ServerTarget
from capstan.report.lineage.source import REPOS

ORDER = ("predict", "model", "consolidate", "features", "images", "rawdata")  # the last made first


@contextmanager
def open_commits(target: ServerTarget, start: str | None = None) -> Iterator["Commits"]:
    """The commits that a commit was made of: `REPO@BRANCH` or `REPO@ID`, else the newest finished.

    SettingError if there is no such commit, CapstanError if the server cannot be asked.
    """
    with plain_errors(target), TemporaryDirectory(prefix="capstan-trace-") as folder:
        client = Client(
            target.host,
            target.port,
            auth_token=target.token,
            root_certs=target.certificates,
            tls=target.tls,
        )
        yield Commits(client, _find(client, target.project, start), Path(folder))


class Commits:
    """Repos that are commits; files are copied to a folder when they are asked for."""

    saved = "saved"

    def __init__(self, client: Client, commits: Mapping[str, pfs.Commit], folder: Path) -> None:
        self._client, self._commits, self._folder = client, commits, folder
        self.sha256 = cache(self._sha256)

    def has(self, repo: str) -> bool:
        """Whether a commit of it is among those the first was made of."""
        return repo in self._commits

    def files(self, repo: str) -> list[str]:
        """All files of the commit."""
        if repo not in self._commits:
            return []
        walked = self._client.pfs.walk_file(file=self._file(repo, "/"))
        files = (info.file.path for info in walked if info.file_type == pfs.FileType.FILE)
        return sorted(path.lstrip("/") for path in files)

    def file(self, repo: str, path: str) -> Path | None:
        """A copy of the file."""
        copy = self._folder / repo / path
        if not copy.exists():
            try:
                with atomic_write(copy) as file:
                    file.writelines(self._read(repo, path))
            except FileNotFoundError:
                return None
        return copy

    def _sha256(self, repo: str, path: str) -> str | None:
        """Reads the file as it comes, without a copy."""
        digest = sha256()
        try:
            for piece in self._read(repo, path):
                digest.update(piece)
        except FileNotFoundError:
            return None
        return digest.hexdigest()

    def name(self, repo: str, path: str = "") -> str:
        """As `pachctl` takes it."""
        commit = self._commits.get(repo)
        return f"{repo}@{commit.id if commit else 'master'}:/{path}"

    def _file(self, repo: str, path: str) -> pfs.File:
        return pfs.File(commit=self._commits[repo], path=path)

    def _read(self, repo: str, path: str) -> Iterator[bytes]:
        if repo not in self._commits:
            raise FileNotFoundError(path)
        try:
            for message in self._client.pfs.get_file(file=self._file(repo, f"/{path}")):
                yield message.value
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                raise FileNotFoundError(path) from error
            raise


def _find(client: Client, project: str, start: str | None) -> dict[str, pfs.Commit]:
    """The commit to begin with and those it was made of, by repo."""
    if start is not None:
        repo, _, name = start.partition("@")
        info = _inspect(client, project, repo, name or "master")
        if info is None:
            raise SettingError(f"--commit {start}: no such commit in project {project}; check it")
    else:
        finished = (_newest_finished(client, project, repo) for repo in ORDER)
        info = next(filter(None, finished), None)
        if info is None:
            raise SettingError(
                f"--project {project}: no finished commit in any of {', '.join(ORDER)}; give "
                "another project, or wait"
            )
    found = {info.commit.repo.name: info.commit}
    _add_provenance(client, info, found)
    return {name: commit for name, commit in found.items() if name in REPOS}


def _add_provenance(client: Client, info: pfs.CommitInfo, found: dict[str, pfs.Commit]) -> None:
    for commit in info.direct_provenance:
        if commit.repo.name not in found:
            found[commit.repo.name] = commit
            _add_provenance(client, client.pfs.inspect_commit(commit=commit), found)


def _newest_finished(client: Client, project: str, repo: str) -> pfs.CommitInfo | None:
    info = _inspect(client, project, repo, "master")
    while info is not None and (info.error or not info.finished.timestamp()):
        parent = info.parent_commit
        info = client.pfs.inspect_commit(commit=parent) if parent and parent.id else None
    return info


def _inspect(client: Client, project: str, repo: str, name: str) -> pfs.CommitInfo | None:
    """A commit by its branch or id, None if there is none."""
    try:
        commit = pfs.Commit.from_uri(f"{project}/{repo}@{name}")
        return client.pfs.inspect_commit(commit=commit)
    except ValueError:  # no name that a branch can have
        return None
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return None
        raise
