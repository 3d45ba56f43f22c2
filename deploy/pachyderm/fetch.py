"""Copy a repo's files from a Pachyderm into a new folder, which appears once it is whole.

`capstan fetch model DIR`, and then `capstan predict --model DIR/saved`, say. The files are those of
the newest commit that is finished without error.
"""

import argparse
import logging
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from capstan.errors import DataError, SettingError
from capstan.pachyderm import connection
from capstan.progress import Progress

if TYPE_CHECKING:
    from capstan.pachyderm.server import Server

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan fetch`."""
    parser.add_argument("repo", metavar="REPO", help="such as model")
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--commit", default="master", metavar="ID|BRANCH", help="where to begin")
    parser.add_argument("--path", default="/", help="copy only what is at or below it")
    connection.add_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Copy the files."""
    from capstan.pachyderm.connect import open_server

    directory: Path = arguments.directory
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise SettingError(f"{directory}: is there already; remove it, or give another folder")
    with open_server(connection.find(arguments)) as server:
        done = fetch(server, arguments.repo, arguments.commit, arguments.path, directory)
    logger.info("%s", done)


def fetch(server: "Server", repo: str, name: str, path: str, directory: Path) -> str:
    """Copy what is at or below `path`; return what was done, in words."""
    from capstan.files import atomic_write
    from capstan.pachyderm.commits import newest_whole

    commit = newest_whole(server, repo, name)
    files = list(server.files(commit, f"/{path.strip('/')}"))
    if not files:
        raise DataError(f"{repo}@{commit.id}:{path}: no files there; check --path")
    directory = directory.absolute()
    temporary = directory.with_name(f".partial-{directory.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with Progress("fetch", "files", len(files)) as progress:
            for file in files:
                with atomic_write(temporary / _inside(file.path)) as copy:
                    copy.writelines(server.read(commit, file.path))
                progress.add()
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    size = sum(file.size for file in files)
    return f"{directory}: {len(files)} files, {size:,} bytes, of {repo}@{commit.id}"


def _inside(path: str) -> PurePosixPath:
    relative = PurePosixPath(path.lstrip("/"))
    if ".." in relative.parts:
        raise DataError(f"{path}: leads out of the folder; fetch it by hand")
    return relative
