"""Trace a row, a caption or a model back to where it came from, and check each hop on the way.

WHAT is a row's key, or its chunk and line number from 0 (cc.tsv/0000000000000000/17); a caption
that was predicted, by its .json or .txt file; the text of a caption that was learned from; or a
model, by its folder, or by the word model for the run's own.

Every file's hash is held against what the next stage has on record of it: ok, broken, not
recorded, absent where a stage's files are not here, or left out by --shallow. A broken hop gives
exit status 1 and says which file to look at.

Through Pachyderm, --run grpc://HOST:PORT, files are read from the commits that the newest finished
one of predict, or else model and so on, was made of; they are copied to a temporary folder as far
as they are looked into. PACH_PYTHON_AUTH_TOKEN is the token where the server wants one.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from capstan.errors import DataError, SettingError
from capstan.pachyderm import connection

if TYPE_CHECKING:
    from capstan.report.lineage.source import RunFiles
    from capstan.report.lineage.tree import TraceStep


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `capstan trace`."""
    parser.add_argument("what", metavar="WHAT", help="a key, a caption or a model")
    parser.add_argument(
        "--run",
        metavar="DIR|ADDRESS",
        help="a folder of `capstan run`, or one that holds rawdata, images and so on, or "
        "grpc://HOST:PORT of a Pachyderm; else the run that WHAT lies in, or this folder",
    )
    parser.add_argument(
        "--commit",
        metavar="REPO@BRANCH|REPO@ID",
        help="where in Pachyderm to begin; else at the newest finished commit",
    )
    parser.add_argument(
        "--shallow",
        action="store_true",
        help="of a model's or prediction's chunks, do not read tars and arrays, the bulk of them",
    )
    parser.add_argument("--json", action="store_true", help="print the tree as JSON")
    connection.add_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Trace, print and fail if a hop is broken."""
    from capstan.report.lineage.tree import as_text, broken

    with _source(arguments) as source:
        step = _trace(source, arguments.what, not arguments.shallow)
    if arguments.json:
        sys.stdout.write(json.dumps(asdict(step), default=str, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(as_text(step))
    if found := broken(step):
        places = ", ".join(dict.fromkeys(check.file for check in found))
        raise DataError(
            f"{len(found)} broken ({found[0].what}: {found[0].why}); look at {places}, and run "
            "again the stage that writes it"
        )


@contextmanager
def _source(arguments: argparse.Namespace) -> Iterator["RunFiles"]:
    from capstan.report.lineage.source import FolderFiles, model_folder, open_folder, run_of

    if arguments.run and "://" in arguments.run:
        arguments.address, arguments.run = arguments.run, None
    if arguments.address and not arguments.run:
        from capstan.report.lineage.commits import open_commits

        with open_commits(connection.find(arguments), arguments.commit) as commits:
            yield commits
        return
    if arguments.commit:
        raise SettingError("--commit: is of Pachyderm; give --run grpc://HOST:PORT too")
    what = Path(arguments.what)
    model = model_folder(what)
    run = Path(arguments.run) if arguments.run else run_of(what) or Path()
    folders = (
        FolderFiles({}) if model and not arguments.run and not run_of(what) else open_folder(run)
    )
    yield folders.with_model(model) if model else folders


def _trace(source: "RunFiles", what: str, deep: bool) -> "TraceStep":
    from capstan.report.lineage.model import trace_caption, trace_model, trace_prediction
    from capstan.report.lineage.row import find_row, trace_row
    from capstan.report.lineage.source import model_folder

    if what == "model" or model_folder(Path(what)):
        return trace_model(source, deep)
    if prediction := _prediction(source, what):
        return trace_prediction(source, prediction, deep)
    if row := find_row(source, what):
        return trace_row(source, *row)
    if caption := trace_caption(source, what):
        return caption
    raise DataError(
        f"{what!r}: no key, prediction or model here, and no training row has such a caption; "
        "check it, and --run"
    )


def _prediction(source: "RunFiles", what: str) -> str | None:
    """Path in repo `predict` of a prediction's JSON that is named by it or by the text beside."""
    name = re.sub(r"\.(json|txt)$", ".json", what)
    if not name.endswith(".json"):
        return None
    root = Path(source.name("predict")).absolute()
    given = Path(name).absolute()
    inside = given.relative_to(root).as_posix() if given.is_relative_to(root) else name
    candidates = (inside, name.removeprefix("predict/"))
    return next((each for each in candidates if source.file("predict", each)), None)
