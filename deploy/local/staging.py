"""A datum's files: its inputs laid under a scratch `/pfs`, its outputs taken out of it."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from capstan.deploy.local.datums import Datum, Repo
from capstan.deploy.local.lineage import DatumRecords
from capstan.errors import DataError


def stage(datum: Datum, repos: Mapping[str, Repo], pfs: Path) -> dict[Path, Path]:
    """Lay the datum's files under `pfs`; returns the real file behind each.

    Files of an input with `empty_files` are empty, as on the cluster: a program may link to them.
    """
    shutil.rmtree(pfs, ignore_errors=True)
    (pfs / "out").mkdir(parents=True)
    present: dict[Path, Path] = {}
    for piece in datum:
        for name in piece.files:
            path = pfs / piece.input.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            present[path] = (repos[piece.input.repo].directory / name).resolve()
            if piece.input.empty_files:
                path.touch()
            elif not path.is_symlink():  # groups may bring a file twice
                path.symlink_to(present[path])
    return present


def collect(pfs: Path, present: Mapping[Path, Path]) -> list[str]:
    """Paths of the outputs, each by now a file of its own in `out`; hidden ones stay behind."""
    out = pfs / "out"
    found: list[str] = []
    for folder, folders, names in os.walk(out):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        folders[:] = [name for name in folders if name[0] != "." and name not in links]
        for path in (Path(folder, name) for name in [*names, *links] if name[0] != "."):
            made = _resolve(path, present) if path.is_symlink() else [path]
            found += [each.relative_to(out).as_posix() for each in made if each.is_file()]
    return found


def _resolve(link: Path, present: Mapping[Path, Path]) -> list[Path]:
    """Put the real file, or all files of a folder, where a symlink is."""
    target = Path(os.path.normpath(link.parent / link.readlink()))
    if target in present:
        files = {link: present[target]}
    elif inside := [path for path in present if target in path.parents]:
        files = {link / path.relative_to(target): present[path] for path in inside}
    elif target.is_dir():
        files = {link / path.relative_to(target): path for path in target.rglob("*")}
    elif target.is_file():
        files = {link: target}
    else:
        raise DataError(f"{link.name}: an output that is a symlink to nothing ({target})")
    link.unlink()
    for path, file in files.items():
        if file.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(file.resolve(), path)
    return list(files)


def _link_or_copy(file: Path, path: Path) -> None:
    try:
        path.hardlink_to(file)
    except OSError:  # another device, or a system without hard links
        shutil.copyfile(file, path)


def publish(datum: str, ledger: DatumRecords, paths: Sequence[str], out: Path) -> None:
    """Rename the outputs into the pipeline's repo; DataError when another datum wrote them."""
    ledger.claim(datum, paths)
    for path in paths:
        final = ledger.repo / path
        final.parent.mkdir(parents=True, exist_ok=True)
        (out / path).rename(final)
