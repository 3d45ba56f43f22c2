"""A training's folder on the volume that launcher and workers share: input in, model out."""

import logging
import shutil
from pathlib import Path

from capstan.errors import DataError
from capstan.files import atomic_path, data_files
from capstan.progress import Progress
from capstan.train.settings import DESCRIPTION

logger = logging.getLogger(__name__)

MEGABYTE = 1_000_000


def lay_in(source: Path, target: Path) -> None:
    """Copy a folder, unless an earlier launch did; `target` is there only once it is whole."""
    if target.is_dir():
        logger.info("%s: there already", target)
        return
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _copy(source, partial)
    partial.rename(target)


def take_out(source: Path, target: Path) -> None:
    """Copy the files of a model, each whole or not there, the one that says it is done last.

    DataError when there is none.
    """
    if not data_files(source):
        raise DataError(
            f"{source}: the workers ended well, but wrote nothing there; the command after -- must "
            "be one that takes --input and --output"
        )
    _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    """Copy visible files, links as what they lead to."""
    paths = sorted(data_files(source), key=lambda path: (path.name == DESCRIPTION, path))
    sizes = [path.stat().st_size for path in paths]
    copied = 0
    with Progress(f"copy to {target}", "MB", sum(sizes) // MEGABYTE) as progress:
        for path, size in zip(paths, sizes, strict=True):
            with atomic_path(target / path.relative_to(source)) as temporary:
                shutil.copyfile(path, temporary)
            progress.add((copied + size) // MEGABYTE - copied // MEGABYTE)
            copied += size
