"""Caption pictures with the model on a Pachyderm.

Puts them into the repo that the pipeline reads, as one commit, waits for its job and prints
`picture<TAB>caption`. A picture that is there already, unchanged, is not sent again.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from capstan.errors import CapstanError, DataError, SettingError
from capstan.pachyderm import connection

if TYPE_CHECKING:
    from capstan.pachyderm.server import Commit, Put, Server

logger = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan caption`."""
    parser.add_argument("pictures", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--repo", default="inpredict", help="repo for pictures")
    parser.add_argument("--pipeline", default="predict", help="pipeline that captions them")
    connection.add_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Put, wait, print; DataError names the pictures that got no caption."""
    from capstan.pachyderm.connect import open_server

    pictures = by_name(arguments.pictures)
    with open_server(connection.find(arguments)) as server:
        commit = predicted(server, pictures, arguments.repo, arguments.pipeline)
        made = {file.path for file in server.files(commit)}
        for name in pictures:
            if f"/{name}.txt" in made:
                text = b"".join(server.read(commit, f"/{name}.txt")).decode(errors="replace")
                sys.stdout.write(f"{pictures[name]}\t{text.strip()}\n")
    if missing := [str(path) for name, path in pictures.items() if f"/{name}.txt" not in made]:
        raise DataError(
            f"no caption for {', '.join(missing)}; are they pictures such as JPEG or PNG, and is "
            "there a model? `capstan status` says"
        )


def by_name(paths: Sequence[Path]) -> dict[str, Path]:
    """Pictures by their names in the repo."""
    names: dict[str, Path] = {}
    for path in paths:
        if not path.is_file():
            raise SettingError(f"{path}: no such file; give the path of a picture")
        if names.setdefault(path.name, path) != path:
            raise SettingError(f"{path}: the same name as {names[path.name]}; give them one by one")
    return names


def predicted(server: "Server", pictures: Mapping[str, Path], repo: str, pipeline: str) -> "Commit":
    """The pipeline's commit that has these pictures' captions, if they have any."""
    from capstan.pachyderm.commits import finished_head, newest_whole
    from capstan.pachyderm.server import STOPPED

    state = next((each.state for each in server.pipelines() if each.name == pipeline), "absent")
    if state in {*STOPPED, "absent"}:
        raise CapstanError(
            f"pipeline {pipeline} is {state}; see `capstan status`, then `capstan up`"
        )
    if not (changed := _changed(server, pictures, repo)):
        return newest_whole(server, pipeline)
    server.modify(repo, changed)
    commit = finished_head(server, repo)
    logger.info("%s@%s: waiting for pipeline %s", repo, commit.id, pipeline)
    job = server.wait_job(pipeline, commit.id)
    if job is None or job.state != "success":
        state = f"{job.state} ({job.reason})" if job else "never made"
        raise CapstanError(
            f"pipeline {pipeline}, job {commit.id}: {state}; `capstan logs {pipeline} --job "
            f"{commit.id}` says more"
        )
    return newest_whole(server, pipeline, job.id)


def _changed(server: "Server", pictures: Mapping[str, Path], repo: str) -> list["Put"]:
    from capstan.pachyderm.commits import is_same, writable_head
    from capstan.pachyderm.server import Put

    head = writable_head(server, repo)
    there = {file.path: file for file in server.files(head)} if head else {}
    changed = []
    for name, path in pictures.items():
        old = there.get(f"/{name}")
        with path.open("rb") as file:
            if head and old and is_same(server, head, old, file, (0, path.stat().st_size)):
                continue
        changed.append(Put(f"/{name}", _pieces(path)))
    return changed


def _pieces(path: Path) -> Iterator[bytes]:
    from capstan.chunks import pieces

    with path.open("rb") as file:
        yield from pieces(file, 0, path.stat().st_size)
