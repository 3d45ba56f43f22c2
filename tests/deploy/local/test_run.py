"""Runs of small shell pipelines, in processes as real as those of the stages."""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from capstan.cli import main

UPPER = "for f in /pfs/raw/*; do tr a-z A-Z < $f > /pfs/out/${f##*/}; done"
COPY = "cp /pfs/upper/* /pfs/out"
RAW = {"pfs": {"repo": "raw", "glob": "/*"}}
UPPERS = {"pfs": {"repo": "upper", "glob": "/*"}}


@dataclass(frozen=True)
class Bench:
    """Specs, a repo `raw` and a run folder, all below one folder."""

    root: Path

    @property
    def output(self) -> Path:
        return self.root / "run"

    def spec(self, name: str, tree: Any, script: str, **more: Any) -> None:
        """A pipeline that runs a shell script; `tree` is its input."""
        transform = {"image": "x:1", "cmd": ["sh", "-euc", script], **more.pop("transform", {})}
        document = {"pipeline": {"name": name}, "input": tree, "transform": transform, **more}
        path = self.root / "specs" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document))

    def put(self, **files: str) -> None:
        """Put files into the repo `raw`."""
        (self.root / "raw").mkdir(exist_ok=True)
        for name, text in files.items():
            (self.root / "raw" / name).write_text(text)

    def words(self, *flags: str) -> list[str]:
        return [
            "run",
            f"--pipelines={self.root / 'specs'}",
            f"--repo=raw={self.root / 'raw'}",
            f"--output={self.output}",
            *(flags or ("--no-report",)),
        ]

    def run(self, *flags: str) -> int:
        return main(self.words("--no-report", *flags))

    def made(self, pipeline: str) -> dict[str, str]:
        """What a pipeline's repo holds, hidden files too."""
        repo = self.output / "repos" / pipeline
        files = sorted(path for path in repo.rglob("*") if path.is_file())
        return {path.relative_to(repo).as_posix(): path.read_text() for path in files}

    def records(self, pipeline: str) -> list[dict[str, Any]]:
        files = (self.output / "lineage" / pipeline).glob("*.json")
        return [json.loads(file.read_text()) for file in sorted(files)]

    def counts(self, pipeline: str) -> tuple[int, int, int]:
        """Datums done, skipped and failed."""
        record = json.loads((self.output / "run.json").read_text())
        result = next(entry for entry in record["pipelines"] if entry["name"] == pipeline)
        return result["done"], result["skipped"], result["failed"]

    def logs(self, pipeline: str) -> str:
        return "".join(log.read_text() for log in (self.output / "logs" / pipeline).iterdir())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.put(a="one\n", b="two\n")
    return bench


@pytest.fixture
def chain(bench: Bench) -> Bench:
    """Two pipelines in a row."""
    bench.spec("upper", RAW, UPPER, parallelism_spec={"constant": 2})
    bench.spec("copy", UPPERS, COPY)
    return bench


def test_a_run_makes_repos_records_logs_and_a_table(
    chain: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chain.run() == 0
    assert chain.made("copy") == {"a": "ONE\n", "b": "TWO\n"}
    record = chain.records("upper")[0]
    assert (record["format"], record["version"]) == ("capstan-lineage", 1)
    assert record["inputs"][0]["repo"] == "raw" and len(record["inputs"][0]["sha256"]) == 64
    output = record["outputs"][0]
    assert (output["path"], output["bytes"]) == (record["inputs"][0]["path"], 4)
    assert (chain.output / record["log"]).is_file()
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["pipeline", "datums", "done", "skipped", "failed", "seconds"]
    assert [line.split()[:5] for line in table[1:]] == [
        ["upper", "2", "2", "0", "0"],
        ["copy", "2", "2", "0", "0"],
    ]
    run = json.loads((chain.output / "run.json").read_text())
    assert run["format"] == "capstan-run" and run["started"] <= run["finished"]
    assert run["repos"] == {"raw": str(chain.root / "raw")}
    assert not list(chain.output.glob(".scratch*"))


def test_a_second_run_does_nothing_and_says_so(
    chain: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chain.run() == 0
    capsys.readouterr()
    assert chain.run() == 0
    assert capsys.readouterr().out == "nothing to do: 4 datums unchanged\n"
    assert chain.counts("upper") == chain.counts("copy") == (0, 2, 0)


def test_a_changed_chunk_redoes_only_what_it_reaches(chain: Bench) -> None:
    chain.run()
    chain.put(b="changed\n")
    assert chain.run() == 0
    assert chain.counts("upper") == chain.counts("copy") == (1, 1, 0)
    assert chain.made("copy") == {"a": "ONE\n", "b": "CHANGED\n"}
    assert len(chain.records("copy")) == 2


def test_equal_outputs_stop_the_change(chain: Bench) -> None:
    chain.run()
    chain.put(b="TWO\n")
    assert chain.run() == 0
    assert chain.counts("upper") == (1, 1, 0)
    assert chain.counts("copy") == (0, 2, 0)


def test_outputs_of_a_removed_chunk_go(chain: Bench) -> None:
    chain.run()
    (chain.root / "raw" / "a").unlink()
    assert chain.run() == 0
    assert chain.made("copy") == {"b": "TWO\n"}
    assert len(chain.records("copy")) == len(list((chain.output / "logs/copy").iterdir())) == 1


def test_damaged_missing_and_stray_outputs_are_put_right(chain: Bench) -> None:
    chain.run()
    repo = chain.output / "repos" / "copy"
    (repo / "a").write_text("damaged")
    (repo / "b").unlink()
    (repo / "stray").touch()
    assert chain.run() == 0
    assert chain.counts("copy") == (2, 0, 0)
    assert chain.made("copy") == {"a": "ONE\n", "b": "TWO\n"}


def test_set_adds_a_flag_and_redoes_its_pipeline(bench: Bench) -> None:
    bench.spec("words", RAW, 'echo "$0 $@" > /pfs/out/${raw##*/}')
    assert bench.run("--set", "words.allow-private", "--set", "words.epochs=12") == 0
    assert bench.made("words")["a"] == "--allow-private --epochs 12\n"
    assert bench.run("--set", "words.allow-private", "--set", "words.epochs=12") == 0
    assert bench.counts("words") == (0, 2, 0)
    assert bench.run("--set", "words.epochs=a=b") == 0
    assert bench.made("words")["a"] == "--epochs a=b\n"


def test_a_file_named_in_the_command_counts_as_input(bench: Bench) -> None:
    weights = bench.root / "weights"
    weights.write_text("1")
    bench.spec("read", RAW, 'cat "$1" > /pfs/out/${raw##*/}', parallelism_spec={"constant": 1})
    flag = f"read.weights={weights}"
    assert bench.run("--set", flag) == 0
    weights.write_text("2")
    assert bench.run("--set", flag) == 0
    assert bench.made("read") == {"a": "2", "b": "2"}
    assert bench.run("--set", flag) == 0
    assert bench.counts("read") == (0, 2, 0)


def test_environment_stdin_and_accepted_status(bench: Bench) -> None:
    bench.spec(
        "env",
        RAW,
        'read line; echo "$line $PLACE $raw $CAPSTAN_LOG_FORMAT" > /pfs/out/${raw##*/}; exit 3',
        transform={"stdin": ["hello"], "env": {"PLACE": "/pfs/x"}, "accept_return_code": [3]},
    )
    assert bench.run() == 0
    hello, place, raw, log_format = bench.made("env")["a"].split()
    assert (hello, log_format) == ("hello", "json")
    assert place.endswith("/pfs/x") and raw == place[:-1] + "raw/a"


# Outputs


def test_links_to_inputs_pass_the_real_file_on(chain: Bench) -> None:
    join = {
        "join": [
            {"pfs": {"repo": "raw", "glob": "/(*)", "join_on": "$1"}},
            {
                "pfs": {
                    "name": "vectors",
                    "repo": "upper",
                    "glob": "/(*)",
                    "join_on": "$1",
                    "empty_files": True,
                }
            },
        ]
    }
    script = """cd /pfs/vectors; for f in *; do test ! -s $f
        ln -s /pfs/vectors/$f /pfs/out/$f.absolute
        ln -s ../vectors/$f /pfs/out/$f.relative; done
        ln -s /pfs/raw /pfs/out/folder"""
    chain.spec("consolidate", join, script)
    assert chain.run() == 0
    assert chain.made("consolidate") == {
        "a.absolute": "ONE\n",
        "a.relative": "ONE\n",
        "b.absolute": "TWO\n",
        "b.relative": "TWO\n",
        "folder/a": "one\n",
        "folder/b": "two\n",
    }
    passed = chain.output / "repos" / "consolidate" / "a.absolute"
    assert passed.samefile(chain.output / "repos" / "upper" / "a")  # no byte was copied


def test_links_elsewhere_are_copied_and_links_to_nothing_refused(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    (bench.root / "other").mkdir()
    (bench.root / "other" / "x").write_text("other")
    bench.spec("link", RAW, f"ln -s {bench.root}/other /pfs/out/${{raw##*/}}")
    assert bench.run() == 0
    assert bench.made("link") == {"a/x": "other", "b/x": "other"}
    bench.spec("link", RAW, "ln -s /pfs/raw/none /pfs/out/${raw##*/}")
    assert bench.run() == 1
    assert "a symlink to nothing" in capfd.readouterr().err
    assert bench.made("link") == {}


def test_hidden_outputs_stay_behind(bench: Bench) -> None:
    script = "mkdir /pfs/out/.spool; touch /pfs/out/.spool/x /pfs/out/.y /pfs/out/${raw##*/}"
    bench.spec("hide", RAW, script)
    assert bench.run() == 0
    assert list(bench.made("hide")) == ["a", "b"]


@pytest.mark.parametrize(
    "script",
    [
        "touch /pfs/out/same",
        "o=/pfs/out; if test -e /pfs/raw/a; then touch $o/x; else mkdir $o/x; touch $o/x/y; fi",
        "o=/pfs/out; if test -e /pfs/raw/b; then touch $o/x; else mkdir $o/x; touch $o/x/y; fi",
    ],
)
def test_two_datums_with_one_path_are_named(
    bench: Bench, capfd: pytest.CaptureFixture[str], script: str
) -> None:
    bench.spec("collide", RAW, script)
    for _ in range(2):  # and again: the first one to finish has it, the other is refused
        assert bench.run() == 1
        error = capfd.readouterr().err
        assert (
            "is written by two datums, raw:/" in error and "raw:/a" in error and "raw:/b" in error
        )
        assert len(bench.made("collide")) == 1


# Failures


def test_a_failed_datum_is_tried_again_shown_and_stops_what_follows(
    chain: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    fail = f"echo no luck >&2; if [ -e /pfs/raw/b ]; then exit 7; fi; {UPPER}"
    chain.spec("upper", RAW, fail, datum_tries=2)
    assert chain.run() == 1
    out, err = capfd.readouterr()
    assert "copy                  not run" in out
    assert "raw:/b failed: exit status 7" in err and "no luck" in err
    assert "error: datums failed: 1 of 2 of upper" in err
    assert chain.counts("upper") == (1, 0, 1)
    assert chain.made("upper") == {"a": "ONE\n"}  # the other went on
    assert chain.made("copy") == {}
    assert chain.logs("upper").count("no luck") == 3
    assert chain.run() == 1
    assert chain.counts("upper") == (0, 1, 1)


def test_a_datum_that_err_cmd_recovers_stops_nothing(
    chain: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    fail = f"if [ -e /pfs/raw/b ]; then exit 7; fi; {UPPER}"
    recovery = {"err_cmd": ["sh"], "err_stdin": ["echo given up: /pfs/raw/*"]}
    chain.spec("upper", RAW, fail, datum_tries=2, transform=recovery)
    assert chain.run() == 1
    assert chain.made("copy") == {"a": "ONE\n"}
    shown = capfd.readouterr().err
    assert "raw:/b failed: exit status 7" in shown
    assert "given up: " in shown and "/pfs/raw/b" in shown
    assert "datums failed: 1 of 2 of upper" in shown
    chain.spec("upper", RAW, fail, datum_tries=1, transform={"err_cmd": ["false"]})
    assert chain.run() == 1
    assert "not run, for its input is not whole" in capfd.readouterr().out


def test_a_datum_past_its_time_is_not_recovered(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server gives err_cmd no time then."""
    late = {"datum_tries": 1, "datum_timeout": "0.1s", "transform": {"err_cmd": ["true"]}}
    bench.spec("upper", RAW, "sleep 60", **late)
    bench.spec("copy", UPPERS, COPY)
    assert bench.run() == 1
    assert "not run, for its input is not whole" in capfd.readouterr().out


def test_a_later_try_counts(bench: Bench) -> None:
    flag = bench.root / "flag"
    bench.spec(
        "second", RAW, f"if [ ! -e {flag} ]; then touch {flag} /pfs/out/junk; exit 1; fi; {UPPER}"
    )
    assert bench.run("--jobs", "1") == 0
    assert bench.made("second") == {"a": "ONE\n", "b": "TWO\n"}


def test_a_datum_past_its_time_is_ended(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.spec("slow", RAW, "sleep 100", datum_timeout="0.2s", datum_tries=1)
    assert bench.run() == 1
    assert "timed out after 0.2 s (datum_timeout)" in capfd.readouterr().err


def test_what_a_program_leaves_running_is_ended(bench: Bench) -> None:
    bench.spec("fork", RAW, "sleep 1000 & echo $! > /pfs/out/${raw##*/}")
    assert bench.run() == 0
    for pid in bench.made("fork").values():
        assert not _is_running(int(pid))


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_program_that_is_not_there_is_a_setting(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.spec("absent", RAW, "", transform={"cmd": ["no-such-program"]})
    assert bench.run() == 2
    assert "absent.json: transform.cmd: no-such-program: No such file" in capfd.readouterr().err


# Interruptions


def _interruptible(bench: Bench) -> str:
    """A pipeline whose second datum writes half a file, tells its pid, and waits."""
    for name in ("tell", "gate"):
        os.mkfifo(bench.root / name)
    (bench.root / "stop").touch()
    script = f"""if [ -e /pfs/raw/b -a -e {bench.root}/stop ]; then
        echo half > /pfs/out/b; echo $$ > {bench.root}/tell; read x < {bench.root}/gate; fi
        {UPPER}"""
    bench.spec("halt", RAW, script)
    return script


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 130), (signal.SIGINT, 130)],
)
def test_a_stopped_run_leaves_nothing_running_and_goes_on(
    bench: Bench, number: signal.Signals, status: int
) -> None:
    _interruptible(bench)
    command = [sys.executable, "-m", "capstan.cli", *bench.words("--no-report", "--jobs=1")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        program = os.pidfd_open(int((bench.root / "tell").read_text()))
        run.send_signal(number)
        assert run.communicate()[1].count("Traceback") == 0
        assert run.returncode == status
    ended, _, _ = select.select([program], [], [], 20)
    os.close(program)
    assert ended
    assert bench.made("halt") == {"a": "ONE\n"}
    (bench.root / "stop").unlink()
    assert bench.run() == 0
    assert bench.counts("halt") == (1, 1, 0)
    assert bench.made("halt") == {"a": "ONE\n", "b": "TWO\n"}
    assert not list(bench.output.glob(".scratch*"))


def test_left_overs_of_a_crash_between_rename_and_record_go(bench: Bench) -> None:
    bench.spec("upper", RAW, UPPER)
    bench.run()
    for record in (bench.output / "lineage" / "upper").glob("*.json"):
        record.unlink()
    bench.spec("upper", RAW, f"{UPPER}; mv /pfs/out/${{raw##*/}} /pfs/out/${{raw##*/}}.txt")
    assert bench.run() == 0
    assert bench.made("upper") == {"a.txt": "ONE\n", "b.txt": "TWO\n"}


def test_one_run_at_a_time(chain: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    chain.run()
    with (chain.output / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert chain.run() == 2
    assert "another `capstan run` is at work there" in capfd.readouterr().err


# Settings


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "copies.epochs=1"], "--set copies.epochs=1: no pipeline copies; there are copy"),
        (["--set", "copy"], "write it as PIPELINE.FLAG"),
        (["--repo", "inpredict"], "--repo inpredict: write it as NAME=DIR"),
        (["--repo", "raw=."], "--repo raw: given twice"),
        (["--repo", "spare=."], "--repo spare: no pipeline reads it; they read raw, upper"),
        (["--repo", "upper=nowhere"], "nowhere: no such directory; give an existing one with"),
        (["--only", "copies"], "--only copies: no such pipeline"),
        (["--only", "copy"], "repo upper, which copy reads, comes from nowhere"),
        (["--jobs", "0"], "--jobs 0: give at least 1"),
        (["--pipelines", "nowhere"], "nowhere: no pipeline specs"),
    ],
)
def test_bad_settings_are_one_line(
    chain: Bench, capfd: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert chain.run(*flags) == 2
    out, err = capfd.readouterr()
    assert message in err and len(err.splitlines()) == 1 and not out
    assert not chain.made("upper")


def test_a_repo_from_nowhere_names_the_flag(
    chain: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    chain.spec("predict", {"pfs": {"repo": "inpredict", "glob": "/*"}}, "")
    assert chain.run() == 2
    error = capfd.readouterr().err
    assert "repo inpredict, which predict reads, comes from nowhere" in error
    assert "--repo inpredict=DIR" in error


def test_a_circle_is_named(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    cross = {"cross": [RAW, {"pfs": {"repo": "second", "glob": "/*"}}]}
    bench.spec("first", cross, "")
    bench.spec("second", {"pfs": {"repo": "first", "glob": "/*"}}, "")
    assert bench.run() == 2
    assert "first" in (error := capfd.readouterr().err) and "in a circle" in error


def test_a_folder_that_is_no_run_is_left_alone(
    chain: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    (chain.output / "repos" / "upper").mkdir(parents=True)
    (chain.output / "repos" / "upper" / "precious").touch()
    assert chain.run() == 2
    assert "not a run" in capfd.readouterr().err
    assert (chain.output / "repos" / "upper" / "precious").exists()


def test_only_works_on_what_earlier_runs_made(chain: Bench) -> None:
    assert chain.run("--only", "upper") == 0
    assert not (chain.output / "repos" / "copy").exists()
    chain.put(b="changed\n")
    assert chain.run("--only", "copy") == 0
    assert chain.made("copy") == {"a": "ONE\n", "b": "TWO\n"}


def test_a_repo_given_by_hand_stands_for_its_pipeline(chain: Bench) -> None:
    assert chain.run(f"--repo=upper={chain.root / 'raw'}") == 0
    assert chain.made("copy") == {"a": "one\n", "b": "two\n"}
    assert chain.made("upper") == {}


def test_globs_that_match_nothing_are_said(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.spec("deep", {"pfs": {"repo": "raw", "glob": "/*/*"}}, "")
    assert bench.run() == 0
    assert "deep: no datums, for nothing matches raw:/*/*" in capfd.readouterr().err


def test_spouts_and_services_are_not_run(chain: Bench) -> None:
    chain.spec("service", RAW, "exit 1", service={"internal_port": 80, "external_port": 80})
    assert chain.run() == 0


# Progress and report


def test_the_programs_own_progress_is_shown(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    line = json.dumps({"message": "images: 5/10 rows", "progress": {"done": 5}})
    os.mkfifo(bench.root / "gate")
    script = f"echo '{line}' >&2; read x < {bench.root}/gate"
    bench.spec("talk", {"pfs": {"repo": "raw", "glob": "/"}}, script)
    command = [sys.executable, "-m", "capstan.cli", *bench.words("--no-report")]
    with subprocess.Popen(
        [*command, "--progress-interval=0.05"], stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        assert any("images: 5/10 rows" in shown for shown in islice(run.stderr, 500))
        (bench.root / "gate").write_text("go\n")
        run.communicate()
    assert run.returncode == 0
    assert line in bench.logs("talk")


def test_the_report_is_drawn_by_the_report_command(
    chain: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bin = chain.root / "bin"
    bin.mkdir()
    (bin / "capstan").write_text(f'#!/bin/sh\necho "$@" > {chain.root}/called; exit $STATUS\n')
    (bin / "capstan").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bin / "python"))
    monkeypatch.setenv("STATUS", "0")
    assert main(chain.words("--jobs=2")) == 0
    assert (chain.root / "called").read_text() == f"report {chain.output}\n"
    monkeypatch.setenv("STATUS", "1")
    assert main(chain.words("--jobs=2")) == 0
    assert "exit status 1; try it by hand" in capfd.readouterr().err
