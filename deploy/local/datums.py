"""Works out the datums of a pipeline: which files each run of its program gets."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

from capstan.deploy.local.globs import compile_glob
from capstan.deploy.specs.read import Input, Pfs
from capstan.files import data_files


@dataclass(frozen=True)
class Repo:
    """A folder of files; `files` are POSIX paths relative to it, sorted."""

    name: str
    directory: Path
    files: Sequence[str]

    @cached_property
    def folders(self) -> list[str]:
        """Every folder that holds a file, as `/` or `/a/b`."""
        found = {f"/{parent}" for name in self.files for parent in _parents(name)}
        return sorted({"/", *found}) if self.files else []

    def below(self, path: str) -> Sequence[str]:
        """The file at a path (`/a/b`), or all files in the folder there."""
        inside = path.strip("/") + "/" if path != "/" else ""
        first = bisect_left(self.files, inside)
        last = bisect_left(self.files, inside[:-1] + "0") if inside else len(self.files)
        return self.files[first:last] or [path[1:]]


def _parents(name: str) -> Iterator[str]:
    end = name.find("/")
    while end >= 0:
        yield name[:end]
        end = name.find("/", end + 1)


def open_repo(name: str, directory: Path) -> Repo:
    """List a repo's visible files; a folder that is not there is empty."""
    names = sorted(path.relative_to(directory).as_posix() for path in data_files(directory))
    return Repo(name, directory.absolute(), names)


@dataclass(frozen=True)
class InputMatch:
    """What one match of an input's glob brings to a datum."""

    input: Pfs
    path: str  # the file or folder that matched, `/a/b`
    join_key: str
    group_key: str
    files: Sequence[str]  # in the repo


Datum = tuple[InputMatch, ...]


def datum_name(datum: Datum) -> str:
    """What a datum is made of, for people."""
    names = [f"{piece.input.repo}:{piece.path}" for piece in datum]
    return " + ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def datums(tree: Input, repos: Mapping[str, Repo]) -> list[Datum]:
    """The datums of an input tree, each once, in a fixed order."""
    by_identity = {
        tuple((piece.input.name, piece.input.repo, piece.path) for piece in datum): datum
        for datum in _datums(tree, repos)
    }
    return list(by_identity.values())


def _datums(tree: Input, repos: Mapping[str, Repo]) -> Iterator[Datum]:
    if isinstance(tree, Pfs):
        for piece in pieces(tree, repos[tree.repo]):
            yield (piece,)
        return
    branches = [list(_datums(branch, repos)) for branch in tree.inputs]
    if tree.kind == "union":
        for branch in branches:
            yield from branch
    elif tree.kind == "cross":
        for combination in product(*branches):
            yield tuple(piece for datum in combination for piece in datum)
    elif tree.kind == "join":
        yield from _join(branches)
    else:
        yield from _group(branches)


def pieces(pfs: Pfs, repo: Repo) -> Iterator[InputMatch]:
    """Matches of an input's glob: files, and folders, which bring all below them."""
    glob = compile_glob(pfs.glob)
    paths = [f"/{name}" for name in repo.files] + repo.folders
    for path in sorted(filter(glob.match, paths)):
        keys = (glob.replace(path, pfs.join_on), glob.replace(path, pfs.group_by))
        yield InputMatch(pfs, path, *keys, repo.below(path))


def _join(branches: Sequence[Sequence[Datum]]) -> Iterator[Datum]:
    """For each key, every way to take one piece from each branch.

    Where a branch has none, what the others have stays only if its input is an outer one.
    """
    keyed = [_by_key(branch, "join_key") for branch in branches]
    for key in sorted({key for groups in keyed for key in groups}):
        present = [groups[key] for groups in keyed if key in groups]
        for combination in product(*present):
            if len(present) == len(branches):
                yield combination
            elif outer := tuple(piece for piece in combination if piece.input.outer_join):
                yield outer


def _group(branches: Sequence[Sequence[Datum]]) -> Iterator[Datum]:
    """One datum for each key, with all its pieces."""
    keyed = [_by_key(branch, "group_key") for branch in branches]
    for key in sorted({key for groups in keyed for key in groups}):
        yield tuple(piece for groups in keyed for piece in groups.get(key, ()))


def _by_key(branch: Sequence[Datum], attribute: str) -> dict[str, list[InputMatch]]:
    groups: dict[str, list[InputMatch]] = defaultdict(list)
    for piece in (piece for datum in branch for piece in datum):
        groups[getattr(piece, attribute)].append(piece)
    return dict(groups)
