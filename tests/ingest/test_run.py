import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from capstan.chunks import find_chunks
from capstan.ingest.config import IngestSettings
from capstan.ingest.journal import Journal
from capstan.ingest.sink import IMAGE_SHARDS
from capstan.testing.web import Fault, Web
from tests.children import workers_of
from tests.ingest.conftest import (
    Capstan,
    all_faults,
    capstan_command,
    files,
    work_here,
    write_chunk,
)

FLAGS = ["--allow-private", "--first-wait", "0"]


def command(settings: IngestSettings, *more: str) -> list[str]:
    places = ["--input", str(settings.input), "--output", str(settings.output)]
    return ["ingest", *places, *FLAGS, *more]


def test_a_run_says_what_it_did_and_does_nothing_twice(
    web: Web, settings: IngestSettings, capstan: Capstan
) -> None:
    for chunk in range(3):
        write_chunk(settings, f"cc.tsv/{chunk}", [*all_faults(web), ("more", web.url("tall.png"))])
    words = command(settings, "--processes", "2", "--log-format", "json")
    first = capstan(*words)
    assert first.returncode == 0, first.stderr
    said = [json.loads(line) for line in first.stderr.splitlines()]
    rows = 3 * (len(all_faults(web)) + 1)
    assert said[-2]["message"] == "3 chunks: 0 unchanged, 3 done"
    assert said[-3]["progress"]["done"] == said[-3]["progress"]["total"] == rows
    done = said[-1]["event"]["ingested"]
    assert rows == done["rows"] == done["images"] + sum(done["failures"].values())
    assert said[-1]["message"].startswith(f"{rows} rows = {done['images']} images + 30 failures (")
    before, asked = files(settings.output), len(web.log)
    assert len(before) == 9

    second = capstan(*words)
    said = [json.loads(line)["message"] for line in second.stderr.splitlines()]
    assert said[-2] == "3 chunks: 3 unchanged, 0 done"
    assert said[-1].startswith(f"{rows} rows = ")
    assert (files(settings.output), len(web.log)) == (before, asked)


def start(settings: IngestSettings, *more: str) -> subprocess.Popen[str]:
    words = capstan_command(*command(settings, *more))
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_goes_on_from_the_rows_it_had(
    web: Web, settings: IngestSettings, capstan: Capstan
) -> None:
    rows = [("a", web.url("wide.jpg", row=row)) for row in range(30)]
    stalled = ("late", web.url("tall.png", Fault.STALLED))
    write_chunk(settings, "cc.tsv/0", [*rows[:10], stalled, *rows[10:]])
    with start(settings, "--in-flight", "4") as killed:
        web.wait_for(25)
        (child,) = workers_of(killed.pid)
        killed.kill()
        killed.communicate()  # returns when the child has closed its end too
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()
    (chunk,) = find_chunks(settings.input)
    made_with = settings.identity(chunk.sha256)
    with Journal(settings.output / ".spool" / chunk.name, made_with, IMAGE_SHARDS.frame) as journal:
        finished = [row for row in range(31) if row in journal]
    assert len(finished) >= 20  # of 25 asked for, 4 were in flight
    assert not (settings.output / "cc.tsv/0.tar").exists()

    web.release()
    resumed = capstan(*command(settings))
    assert f"{len(finished)} from a stopped run" in resumed.stderr
    paths = web.paths()
    for row in finished:
        caption, url = [*rows[:10], stalled, *rows[10:]][row]
        assert paths[url.removeprefix(web.address)] == 1, (caption, row)
    shards = files(settings.output)
    assert sorted(shards) == ["cc.tsv/0.parquet", "cc.tsv/0.tar", "cc.tsv/0_stats.json"]
    undisturbed = replace(settings, output=settings.output.with_name("undisturbed"))
    work_here(undisturbed)
    assert files(undisturbed.output) == shards


def test_a_process_that_dies_fails_the_run_and_can_be_taken_up(
    web: Web, settings: IngestSettings
) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg", Fault.STALLED))])
    with start(settings) as running:
        web.wait_for(1)
        (child,) = workers_of(running.pid)
        os.kill(child, signal.SIGKILL)
        _, said = running.communicate()
    assert running.returncode == 1
    assert "was killed by SIGKILL; run the same command again" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_an_interrupted_run_says_how_to_go_on(web: Web, settings: IngestSettings) -> None:
    write_chunk(settings, "0", [("a", web.url("wide.jpg", Fault.STALLED))])
    with start(settings) as running:
        web.wait_for(1)
        (child,) = workers_of(running.pid)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate()
    assert running.returncode == 130
    assert "interrupted; run the same command again to go on" in said
    assert "Traceback" not in said
    assert not Path(f"/proc/{child}").exists()


def test_a_terminated_run_lets_go_on_what_is_out_and_begins_nothing(
    web: Web, settings: IngestSettings, capstan: Capstan
) -> None:
    rows = [("a", web.url("wide.jpg", Fault.STALLED, row)) for row in range(30)]
    write_chunk(settings, "0", rows)
    with start(settings, "--in-flight", "4", "--per-host", "4") as running:
        web.wait_for(4)
        running.send_signal(signal.SIGTERM)
        assert running.stderr is not None
        while "stopping" not in running.stderr.readline():
            pass
        web.release()
        _, said = running.communicate(timeout=20)
    assert running.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said
    assert len(web.log) == 4

    resumed = capstan(*command(settings))
    assert "4 from a stopped run" in resumed.stderr
    assert set(web.paths().values()) == {1}


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["split", "none.tsv", "--output", "out"], 2, "none.tsv: no such file"),
        (["split", "in", "--output", "out"], 2, "in: no such file"),
        (["split", "one.tsv", "--output", "out"], 1, "one.tsv: no tab in line 1 ('one')"),
        (["split", "empty.tsv", "--output", "out"], 1, "empty.tsv: empty"),
        (["split", "good.tsv", "--output", "one.tsv"], 2, "one.tsv/good.tsv: cannot write"),
        (["split", "good.tsv", "--output", "."], 2, "good.tsv: cannot write"),
        (["split", "good.tsv", "--output", "out", "--rows", "0"], 2, "--rows 0"),
        (["ingest", "--input", "none", "--output", "out"], 2, "none: no such directory"),
        (["ingest", "--input", "void", "--output", "out"], 1, "void: no chunks in it"),
        (["ingest", "--input", "in", "--output", "out"], 1, "in/0: no line of it has a tab"),
        (["ingest", "--input", "tabs", "--output", "one.tsv"], 2, "one.tsv: cannot write"),
        (
            ["ingest", "--input", "tabs", "--output", "out", "--jpeg-quality", "101"],
            2,
            "--jpeg-quality 101: give at most 100",
        ),
        (
            ["ingest", "--input", "tabs", "--output", "blocked", "--allow-private"],
            2,
            "blocked/.spool: cannot write",
        ),
        (["ingest", "--input", "tabs", "--output", "tabs/out"], 2, "tabs/out: lies in tabs"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], status: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in", "void", "tabs", "blocked"):
        Path(name).mkdir()
    for name in ("one.tsv", "in/0"):
        Path(name).write_text("one\ncolumn\n")
    Path("empty.tsv").touch()
    for name in ("good.tsv", "tabs/0"):
        Path(name).write_text("a\thttp://127.0.0.1:1/\n")
    Path("blocked/.spool").touch()
    done = subprocess.run(
        capstan_command(*words), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert message in line
    assert "Traceback" not in done.stderr
    assert not Path("out").exists() or not files(Path("out"))
