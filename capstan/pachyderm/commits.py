"""Commits that are made of changes, and the contents of those that are there."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import BinaryIO

from capstan.chunks import pieces
from capstan.errors import CapstanError
from capstan.pachyderm.server import Commit, File, Server


def writable_head(server: Server, repo: str) -> Commit | None:
    """The newest commit of a repo's master, None if there is none; CapstanError if it is open."""
    if repo not in server.repos():
        raise CapstanError(
            f"project {server.project} has no repo {repo}; make it with `capstan up`, or give "
            "another repo or --project"
        )
    head = server.commit(repo)
    if head and head.open:
        raise CapstanError(
            f"{repo}@{head.id} is being written to by another program; finish it with "
            f"`pachctl finish commit {repo}@master`, or delete it"
        )
    return head


def finished_head(server: Server, repo: str) -> Commit:
    """The newest commit of a repo's master, once it is finished; CapstanError if it failed."""
    head = server.commit(repo)
    if head is None:
        raise CapstanError(f"{repo}@master is gone meanwhile; run again")
    commit = server.wait_commit(head)
    if commit.error:
        raise CapstanError(f"{repo}@{commit.id}: {commit.error}; mend that, and run again")
    return commit


def newest_whole(server: Server, repo: str, name: str = "master") -> Commit:
    """The newest commit that is finished without error, from a branch's head or a commit back."""
    commit = server.commit(repo, name)
    while commit and (commit.error or not commit.finished):
        commit = server.commit(repo, commit.parent) if commit.parent else None
    if commit is None:
        raise CapstanError(
            f"{repo}@{name}: no finished commit in project {server.project}; `capstan status` "
            "says how far it is"
        )
    return commit


def is_same(
    server: Server, head: Commit, old: File, source: BinaryIO, span: tuple[int, int]
) -> bool:
    """Whether a file of a commit has the bytes that `source` has from `span[0]` to `span[1]`.

    The server's hash is BLAKE2b of its blocks' BLAKE2b (`src/internal/storage/fileset`, 2.12). A
    file of one block, as all up to 1 MB and most up to some MB are, is compared by it; else read.
    """
    if old.size != span[1] - span[0]:
        return False
    digest = _blake2b(pieces(source, *span))
    return _blake2b([digest]) == old.hash or digest == _blake2b(server.read(head, old.path))


def _blake2b(parts: Iterable[bytes]) -> bytes:
    digest = blake2b(digest_size=32)
    for part in parts:
        digest.update(part)
    return digest.digest()
