"""Groups of processes: their places, their supervisor, and real ones that train."""

import argparse
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from capstan.cli import main
from capstan.errors import CapstanError, SettingError
from capstan.train import workers
from capstan.train.command import _command, configure
from capstan.train.history import CHECKPOINTS
from capstan.train.workers import RESTARTS, LostWorkerError, Place, environments, place, supervise
from tests.children import children_of

# Places


@pytest.mark.parametrize(
    ("cluster", "task", "expected"),
    [
        ({"worker": ["a:1", "b:1"]}, ("worker", 1), Place(1, 2)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, ("chief", 0), Place(0, 3)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, ("worker", 1), Place(2, 3)),
        ({"worker": ["a:1"]}, ("worker", "0"), Place(0, 1)),
    ],
)
def test_places(cluster: dict[str, list[str]], task: tuple[str, int], expected: Place) -> None:
    config = {"cluster": cluster, "task": {"type": task[0], "index": task[1]}}
    assert place({"TF_CONFIG": json.dumps(config)}) == expected


def test_alone() -> None:
    assert place({}) == place({"TF_CONFIG": ""}) == Place(0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "first"}}',
    ],
)
def test_a_bad_place(text: str) -> None:
    with pytest.raises(SettingError, match="TF_CONFIG"):
        place({"TF_CONFIG": text})


def test_what_workers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,GPU-3,4")
    told = list(environments(2))
    assert [place(environment) for environment in told] == [Place(0, 2), Place(1, 2)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in told] == ["0,1", "2,GPU-3"]
    cores = len(os.sched_getaffinity(0))
    assert {each["TF_NUM_INTRAOP_THREADS"] for each in told} == {str(max(1, cores // 2))}
    (addresses,) = {str(json.loads(each["TF_CONFIG"])["cluster"]) for each in told}
    assert len(set(re.findall(r"127\.0\.0\.1:\d+", addresses))) == 2
    with pytest.raises(SettingError, match="--workers 6, but there are 5 GPUs"):
        list(environments(6))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not any("CUDA_VISIBLE_DEVICES" in each for each in environments(6))


def test_workers_are_given_the_flags() -> None:
    parser = argparse.ArgumentParser()
    configure(parser)
    words = ["--input", "some where", "--output", "-x", "--workers", "3", "--seed", "7"]
    arguments = parser.parse_args([*words[:2], "--output=-x", *words[4:]])
    again = parser.parse_args(_command(arguments)[4:])
    assert again.workers == 1
    assert {**vars(again), "workers": 3} == vars(arguments)


# The supervisor, over programs that are quick to start


class Program:
    """A program for `supervise` that notes each start, and then does what `code` says."""

    BEGIN = """
import json, os, pathlib, signal, sys, threading
from capstan.train.workers import end_with_supervisor, place
end_with_supervisor()
rank, folder = place().rank, pathlib.Path(sys.argv[1])
def die(number): os.kill(os.getpid(), number); threading.Event().wait()
def hang(): threading.Event().wait()
def start():
    with (folder / f"starts-{rank}").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    return len((folder / f"starts-{rank}").read_text().split())
"""

    def __init__(self, folder: Path, code: str) -> None:
        self.folder = folder
        self.command = [sys.executable, "-c", self.BEGIN + code, str(folder)]

    def starts(self, rank: int) -> list[int]:
        """Process ids of the starts of a worker."""
        path = self.folder / f"starts-{rank}"
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    def check_gone(self) -> None:
        for rank in range(3):
            for process in self.starts(rank):
                assert not Path(f"/proc/{process}").exists()


def test_a_group_that_ends_well(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = Program(tmp_path, "start(); print('said by', rank)")
    supervise(program.command, 3, lambda: None)
    assert len(program.starts(0)) == 1
    assert "said by 0" in capfd.readouterr().out
    program.check_gone()


def test_a_killed_worker_is_started_again_with_all_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = """
if start() == 1:
    if rank == 1:  # once the others are up: else they may be ended before they note their start
        for other in (0, 2):
            (folder / f"up-{other}").read_bytes()
        die(signal.SIGKILL)
    (folder / f"up-{rank}").write_bytes(b"")
    hang()
"""
    for rank in (0, 2):
        os.mkfifo(tmp_path / f"up-{rank}")
    program = Program(tmp_path, code)
    supervise(program.command, 3, lambda: None)
    assert len(program.starts(0)) == 2
    assert "worker 1 was killed by SIGKILL" in caplog.text
    program.check_gone()


def test_a_worker_that_always_fails(tmp_path: Path) -> None:
    code = """
start()
if rank == 1:
    print("the end is near")
    sys.exit(3)
hang()
"""
    program = Program(tmp_path, code)
    with pytest.raises(CapstanError, match=r"worker 1 ended with status 3.*\n.*the end is near"):
        supervise(program.command, 2, lambda: None)
    assert len(program.starts(1)) == 1 + RESTARTS
    program.check_gone()


def test_progress_gives_new_restarts(tmp_path: Path) -> None:
    code = f"sys.exit(start() <= {2 * RESTARTS})"
    program = Program(tmp_path, code)
    supervise(program.command, 1, lambda: len(program.starts(0)) // 2)
    assert len(program.starts(0)) == 2 * RESTARTS + 1


def test_a_bad_setting_is_not_tried_again(tmp_path: Path) -> None:
    program = Program(tmp_path, "start(); sys.exit(2) if rank else hang()")
    with pytest.raises(SettingError, match="worker 1 ended with status 2"):
        supervise(program.command, 2, lambda: None)
    assert len(program.starts(0)) <= 1


@pytest.mark.parametrize(("last", "named"), [("die(9)", "killed by SIGKILL"), ("hang()", "hangs")])
def test_the_worker_at_fault_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, named: str
) -> None:
    """Not those which found it gone, though they may end first."""
    monkeypatch.setattr(workers, "RESTARTS", 0)
    monkeypatch.setattr(workers, "BLAME_SECONDS", 1.0)
    program = Program(tmp_path, f"start(); sys.exit(75) if rank != 1 else {last}")
    with pytest.raises(CapstanError, match=f"worker 1 .*{named}"):
        supervise(program.command, 3, lambda: None)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    program = Program(tmp_path, "start(); print('up', flush=True); hang()")
    code = (
        "import sys; from capstan.train.workers import supervise; supervise(sys.argv[1:], 2, list)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, *program.command],
        env=os.environ | {"TMPDIR": str(tmp_path)},  # a killed supervisor leaves its logs
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        children = [os.pidfd_open(process) for process in children_of(parent.pid)]
        assert len(children) == 2
        parent.send_signal(number)
        for child in children:
            assert select.select([child], [], [], 10)[0], "still there"
            os.close(child)


# Real ones

THIS_FOLDER = Path(__file__).parent
FLAGS = [
    *("--profile", "small", "--batch-size", "16", "--min-count", "1", "--learning-rate", "0.01"),
    *("--epochs", "6", "--patience", "99", "--precision", "float32"),
    *("--dropout", "0", "--state-dropout", "0"),
]


@pytest.fixture(scope="module")
def alone(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that one process trained, which nothing stopped."""
    model = tmp_path_factory.mktemp("alone") / "model"
    assert main(["train", "--input", str(shapes), "--output", str(model), *FLAGS]) == 0
    return model


@contextmanager
def training(
    shapes: Path, model: Path, workers: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "capstan.cli", "train", "--input", str(shapes)]
    with subprocess.Popen(
        [*command, "--output", str(model), *FLAGS, "--workers", str(workers)],
        env=os.environ | (environment or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """A process's stderr up to a line with a text in it."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            break
    else:
        raise AssertionError(f"no {text!r} in {''.join(lines)}")
    return "".join(lines)


def curves(model: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (model / "curves.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def killed(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a process that was killed in its third epoch or a little later."""
    model = tmp_path_factory.mktemp("killed") / "model"
    with training(shapes, model) as process:
        read_until(process, "epoch 2:")
        process.kill()
    assert not (model / "saved").exists()
    assert list((model / CHECKPOINTS).iterdir())
    return model


def test_a_killed_process_goes_on_to_the_same_weights(
    shapes: Path, tmp_path: Path, alone: Path, killed: Path
) -> None:
    import keras

    model = Path(shutil.copytree(killed, tmp_path / "model"))
    assert main(["train", "--input", str(shapes), "--output", str(model), *FLAGS]) == 0
    ours, theirs = (
        keras.models.load_model(each / "saved" / "saved_model.keras").get_weights()
        for each in (model, alone)
    )
    assert all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))


def test_a_group_that_lost_a_worker_ends_like_one_process(
    shapes: Path, tmp_path: Path, alone: Path
) -> None:
    model = tmp_path / "model"
    with training(shapes, model, workers=2) as process:
        read_until(process, "epoch 2:")
        (chief, other) = children_of(process.pid)
        descriptor = os.pidfd_open(chief)
        os.kill(other, signal.SIGKILL)
        assert select.select([descriptor], [], [], 30)[0], "the group goes on"
        os.close(descriptor)
        assert "worker 1 was killed by SIGKILL" in read_until(process, "starting all 2 again")
        said = read_until(process, "epoch 6:")
        assert "going on after epoch" in said
        assert "epoch 1:" not in said
        assert process.wait() == 0
    ours, theirs = curves(model), curves(alone)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for name in ("train_loss", "validation_loss"):
        found, expected = ([line[name] for line in lines] for lines in (ours, theirs))
        assert found == pytest.approx(expected, rel=1e-4), name
    assert not (model / CHECKPOINTS).exists()


def test_a_group_started_from_outside(shapes: Path, tmp_path: Path, killed: Path) -> None:
    """By TF_CONFIG alone, as on a cluster; worker 1 sees nothing of the chief's folder."""
    model = Path(shutil.copytree(killed, tmp_path / "model"))
    told = [{"TF_CONFIG": each["TF_CONFIG"]} for each in environments(2)]
    with (
        training(shapes, model, environment=told[0]) as chief,
        training(shapes, tmp_path / "other", environment=told[1]) as other,
    ):
        assert "epoch 1:" not in read_until(chief, "epoch 5:")
        chief.kill()
        said = read_until(other, "worker 1 of 2 lost another")
        assert other.wait(30) == LostWorkerError.exit_status
    assert "epoch 1:" not in said
    assert not (tmp_path / "other").exists()
    assert len(list((model / CHECKPOINTS).glob("*.npz"))) == 2


def test_two_replicas_in_a_process_step_like_one(shapes: Path) -> None:
    script = THIS_FOLDER / "two_replicas.py"
    subprocess.run([sys.executable, str(script), str(shapes)], check=True, timeout=300)
