"""Shards shared out to processes."""

import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from capstan.errors import SettingError
from capstan.featurize import processes
from capstan.featurize.processes import ProcessPlace, places
from tests.children import workers_of
from tests.commands import command_line, run_here, run_process
from tests.featurize.conftest import SIZE, jpeg, write_images
from tests.networks import weights_file

__all__ = ["weights_file"]

CORES = frozenset({0, 1, 2, 3})


@pytest.fixture
def words(weights_file: Path, tmp_path: Path) -> list[object]:
    """`featurize` without its output."""
    network = ["--weights", weights_file, "--image-size", SIZE, "--batch-size", 4]
    return ["featurize", "--input", tmp_path / "in", *network]


def arrays(folder: Path) -> dict[str, NDArray[np.float16]]:
    return {path.name: np.load(path) for path in folder.rglob("*.npy")}


def tables(folder: Path) -> dict[str, pa.Table]:
    return {path.name: pq.read_table(path) for path in folder.rglob("*.parquet")}


def test_two_processes_make_the_same_shards(words: list[object], tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    for shard in range(4):
        write_images(tmp_path / "in", [jpeg(10 * shard + n) for n in range(3)], f"{shard}")
    alone = run_here(*words, "--output", tmp_path / "one")
    both = run_process(*words, "--output", tmp_path / "two", "--workers", 2)
    assert alone.returncode == both.returncode == 0
    one, two = arrays(tmp_path / "one"), arrays(tmp_path / "two")
    assert one.keys() == two.keys()
    assert len(one) == 4
    for name, features in one.items():  # fewer threads may be other kernels, which round otherwise
        np.testing.assert_allclose(two[name], features, rtol=2e-3, atol=2e-3)
    assert tables(tmp_path / "one") == tables(tmp_path / "two")
    assert "12 pictures in the network" in alone.stderr
    assert "12 pictures in the network" in both.stderr
    assert both.stderr.count("extractor:") == 2


def test_killed_process_is_one_line_and_resumed(words: list[object], tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    for shard in range(2):
        write_images(tmp_path / "in", [jpeg(shard)], f"{shard}")
    words += ["--output", tmp_path / "out"]
    command = command_line(*words, "--workers", 2)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:  # children say when they have loaded the network
            lines.append(line)
            if "extractor:" in line:
                os.kill(workers_of(process.pid)[-1], signal.SIGKILL)
                break
        lines += process.stderr.readlines()
    assert process.returncode == 1
    assert "was killed" in lines[-1]
    assert "Traceback" not in "".join(lines)
    assert run_here(*words).returncode == 0
    assert len(arrays(tmp_path / "out")) == len(tables(tmp_path / "out")) == 2


# Where


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(CORES))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [])


@pytest.mark.usefixtures("four_cores")
def test_a_process_for_each_numa_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "NODES", tmp_path)
    assert places(0) == [ProcessPlace(CORES)]  # no such folder
    for node, cores in {
        "node0": "0-1,8-9\n",
        "node1": "2,3\n",
        "node2": "\n",
        "node3": "7",
    }.items():
        (tmp_path / node).mkdir()
        (tmp_path / node / "cpulist").write_text(cores)
    assert places(0) == [ProcessPlace(frozenset({0, 1})), ProcessPlace(frozenset({2, 3}))]


@pytest.mark.usefixtures("four_cores")
def test_cores_are_shared_evenly() -> None:
    assert [sorted(place.cores) for place in places(3)] == [[0], [1], [2, 3]]
    with pytest.raises(SettingError, match=re.escape("--workers 5: there are 4; give no more")):
        places(5)


@pytest.mark.usefixtures("four_cores")
def test_a_process_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["GPU:0", "GPU:1"])
    assert [place.environment for place in places(0)] == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "1"},
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,MIG-abc")
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places(0)] == ["5", "MIG-abc"]
    assert len(places(1)) == 1
    with pytest.raises(SettingError, match="--workers 3: there are 2"):
        places(3)
