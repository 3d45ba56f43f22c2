"""Datum batching: a real `capstan featurize` under a worker that behaves as Pachyderm's."""

from pathlib import Path

import pytest

from capstan.feature_shards import read_feature_shard
from capstan.records import Reason
from tests.capstan.worker import Datum, Worker
from tests.commands import command_line, run_here
from tests.featurize.conftest import SIZE, jpeg, write_images
from tests.networks import weights_file

__all__ = ["weights_file"]


@pytest.fixture
def words(weights_file: Path) -> list[object]:
    """`featurize` without its folders."""
    network = ["--weights", weights_file, "--image-size", SIZE, "--batch-size", "2"]
    return ["featurize", *network, "--datum-batching"]


def command(words: list[object], root: Path, *flags: str) -> list[str]:
    return command_line(*words, "--input", root / "images", "--output", root / "out", *flags)


def datum(folder: Path, number: int, pictures: list[bytes]) -> Datum:
    inputs = folder / f"datum-{number}" / "images"
    write_images(inputs, pictures, f"cc.tsv/{number:016d}")
    return Datum(str(number), {"images": inputs}, folder / f"datum-{number}" / "out")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_network_is_loaded_once_for_all_datums(words: list[object], tmp_path: Path) -> None:
    datums = [datum(tmp_path, number, [jpeg(number), b"broken"]) for number in range(50)]
    root = tmp_path / "pfs"
    with Worker(root, command(words, root)) as worker:
        worker.run(datums)
    assert all(each.done for each in datums)
    assert worker.starts == 1
    assert worker.log.count("extractor:") == 1
    for number, each in enumerate(datums):
        chunk = f"cc.tsv/{number:016d}"
        assert files(each.out) == [f"{chunk}.npy", f"{chunk}.parquet"]
        shard = read_feature_shard(each.out / f"{chunk}.parquet")
        assert [row.reason for row in shard.rows] == [None, Reason.NOT_AN_IMAGE]


def test_a_failed_datum_is_reported_and_the_others_done(
    words: list[object], tmp_path: Path
) -> None:
    datums = [datum(tmp_path, number, [jpeg(number)]) for number in range(3)]
    tar = datums[1].inputs["images"] / "cc.tsv/0000000000000001.tar"
    tar.write_bytes(tar.read_bytes()[:4096])
    root = tmp_path / "pfs"
    with Worker(root, command(words, root), tries=2) as worker:
        worker.run(datums)
    assert [each.done for each in datums] == [True, False, True]
    assert [len(each.errors) for each in datums] == [0, 2, 0]
    assert "0000000000000001.tar: damaged (truncated at byte 4096)" in datums[1].errors[0]
    assert files(datums[1].out) == []
    assert worker.starts == 3
    assert "Traceback" not in worker.log


def test_batched_shards_are_those_of_plain_runs(words: list[object], tmp_path: Path) -> None:
    one = datum(tmp_path, 0, [jpeg(0), jpeg(1), jpeg(2)])
    root = tmp_path / "pfs"
    with Worker(root, command(words, root)) as worker:
        worker.run([one])
    plain = tmp_path / "plain"
    places = ("--input", one.inputs["images"], "--output", plain)
    done = run_here(*words, *places)  # no worker: the flag is of no effect
    assert done.returncode == 0, done.stderr
    assert files(plain) == files(one.out)
    assert all(
        (plain / name).read_bytes() == (one.out / name).read_bytes() for name in files(plain)
    )


def test_settings_end_the_process_before_any_datum(words: list[object], tmp_path: Path) -> None:
    root = tmp_path / "pfs"
    one = datum(tmp_path, 0, [jpeg(0)])
    with Worker(root, command(words, root, "--runtime", "openvino", "--batch-size", "0")) as worker:
        assert worker.ends() == 2
    assert "--batch-size 0: give at least 1" in worker.log
    assert not one.done


def test_a_worker_that_does_not_batch_is_one_line(words: list[object], tmp_path: Path) -> None:
    root = tmp_path / "pfs"
    with Worker(root, command(words, root)) as worker:
        worker.refuse("datum batching not enabled")
        assert worker.ends() == 1
    assert "the worker gives no datum (datum batching not enabled)" in worker.log
    assert "Traceback" not in worker.log
