"""`capstan ingest --featurize` as its users run it, with a real ResNet50 on small pictures."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from capstan.chunks import find_chunks
from capstan.feature_shards import open_features, read_feature_shard
from capstan.ingest.config import IngestSettings
from capstan.ingest.fused.sink import feature_sink
from capstan.ingest.job import SPOOLS, identity
from capstan.ingest.journal import Journal, no_envelope
from capstan.shards import FUSED, OUTCOMES_SUFFIX, read_image_stats, read_outcomes
from capstan.testing.web import Fault, Web
from capstan.train.consolidate import ConsolidateFolders, consolidate
from capstan.train.consolidate import ConsolidateSettings as Joining
from tests.children import workers_of
from tests.commands import run_here
from tests.ingest.conftest import (
    Capstan,
    all_faults,
    capstan_command,
    files,
    work_here,
    write_chunk,
)
from tests.ingest.fused.conftest import NETWORK, SIZE

FEATURES = ["--weights", "random:3", "--batch-size", "4"]
FUSE = ["--featurize", *FEATURES, "--feature-size", str(SIZE), "--first-wait", "0"]
JFIF = b"\xff\xd8\xff\xe0\x00\x10JFIF"  # what a JPEG of Pillow's begins with


def command(settings: IngestSettings, *more: str) -> list[str]:
    places = ["--input", str(settings.input), "--output", str(settings.output)]
    return ["ingest", *places, "--allow-private", *FUSE, *more]


def in_two_steps(settings: IngestSettings) -> tuple[Path, Path]:
    """Image shards and feature shards of the same rows, by `capstan ingest` and `featurize`."""
    images, features = (settings.output.with_name(name) for name in ("images", "features"))
    work_here(replace(settings, output=images))
    places = ["--input", images, "--output", features]
    done = run_here("featurize", *places, *FEATURES, "--image-size", SIZE)
    assert done.returncode == 0, done.stderr
    return images, features


def jpegs_below(folder: Path) -> list[str]:
    """Files that hold a JPEG or a part of one, hidden ones too."""
    return [name for name, data in files(folder).items() if JFIF in data or b"JFIF" in data]


def test_what_comes_out_is_what_two_steps_make(
    web: Web,
    settings: IngestSettings,
    capstan: Capstan,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    passing = {Fault.FLAKY}  # well for whoever comes second
    rows = [row for row in all_faults(web) if row[0] not in passing]
    write_chunk(settings, "cc.tsv/0", [*rows, ("not a row", "")])
    write_chunk(settings, "cc.tsv/1", [(f"cap {n}", web.url(f"{n}.jpg")) for n in range(9)])
    (tmp_path / "t").mkdir()  # short, for sockets are made there
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    images, features = in_two_steps(settings)

    done = capstan(*command(settings, "--processes", "2"))

    assert done.returncode == 0, done.stderr
    failures = len(rows) + 1 - read_image_stats(images / "cc.tsv/0_stats.json")["images"]
    assert f"{len(rows) + 10} rows = {len(rows) + 10 - failures} images" in done.stderr
    for chunk in ("cc.tsv/0", "cc.tsv/1"):
        fused, apart = (
            read_feature_shard(folder / f"{chunk}.parquet")
            for folder in (settings.output, features)
        )
        assert (fused.rows, fused.extractor) == (apart.rows, apart.extractor)
        assert fused.npy_sha256 == apart.npy_sha256
        open_features(settings.output / f"{chunk}.npy", apart.npy_sha256)
        outcomes = read_outcomes(settings.output / f"{chunk}{OUTCOMES_SUFFIX}")
        assert outcomes.equals(read_outcomes(images / f"{chunk}.parquet"))
        stats = read_image_stats(settings.output / f"{chunk}_stats.json", FUSED)
        assert sorted(stats["files"]) == [".npy", ".parquet", OUTCOMES_SUFFIX]
    assert jpegs_below(images)
    assert jpegs_below(settings.output) == jpegs_below(tmp_path / "t") == []

    before, asked = files(settings.output), len(web.log)
    again = capstan(*command(settings))
    assert "2 chunks: 2 unchanged, 0 done" in again.stderr
    assert (files(settings.output), len(web.log)) == (before, asked)
    folders = ConsolidateFolders(
        settings.input, settings.output, settings.output, tmp_path / "examples"
    )
    folders.output.mkdir()
    counts = consolidate(folders, Joining())
    assert counts["joined"] == len(rows) + 10 - failures
    assert counts["without features"] == failures


def has_ended(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or "Z" in status.read_text()


def start(settings: IngestSettings, *more: str) -> subprocess.Popen[str]:
    words = capstan_command(*command(settings, "--processes", "1", *more))
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)


def kept(settings: IngestSettings) -> set[int]:
    """The rows in the journal of the only chunk."""
    (chunk,) = find_chunks(settings.input)
    made_with = identity(chunk, settings, feature_sink(NETWORK))
    with Journal(
        settings.output / SPOOLS / chunk.name, made_with, no_envelope, hashed=False
    ) as journal:
        return {row for row in range(chunk.contents.rows) if row in journal}


@pytest.fixture
def rows(web: Web, settings: IngestSettings) -> list[tuple[str, str]]:
    """A chunk of many rows, of which one never answers until it is released."""
    answering = [("a", web.url(f"{n}.jpg", row=n)) for n in range(30)]
    stalled = ("late", web.url("tall.png", Fault.STALLED))
    rows = [*answering[:5], stalled, *answering[5:]]
    write_chunk(settings, "cc.tsv/0", rows)
    return rows


def test_a_run_killed_as_a_whole_and_then_in_its_extractor_goes_on(
    web: Web, settings: IngestSettings, capstan: Capstan, rows: list[tuple[str, str]]
) -> None:
    with start(settings, "--in-flight", "4") as killed:
        web.wait_for(29)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
    first = kept(settings)
    assert len(first) >= 29 - 4 - 2 * 4 - 1  # but for those in flight or waiting for the network
    assert jpegs_below(settings.output) == []

    with start(settings, "--in-flight", "4") as running:
        web.wait_for(29 + len(rows) - len(first) - 1)
        extractor, ingest = workers_of(running.pid)
        os.kill(extractor, signal.SIGKILL)
        said = running.communicate()[1].splitlines()
    assert running.returncode == 1
    assert f"error: extractor process {extractor} was killed by SIGKILL; run the same" in said[-1]
    assert not [line for line in said if "Traceback" in line]
    assert has_ended(ingest)
    second = kept(settings)
    assert second >= first

    web.release()
    done = capstan(*command(settings))
    assert done.returncode == 0, done.stderr
    assert f"{len(second)} from a stopped run" in done.stderr
    asked = web.paths()
    for row in first:
        assert asked[rows[row][1].removeprefix(web.address)] == 1
    assert jpegs_below(settings.output) == []
    _, features = in_two_steps(settings)
    assert files(features)["cc.tsv/0.npy"] == files(settings.output)["cc.tsv/0.npy"]


def test_no_process_outlives_its_parent(
    web: Web, settings: IngestSettings, rows: list[tuple[str, str]]
) -> None:
    with start(settings) as killed:
        web.wait_for(len(rows))
        started = workers_of(killed.pid)
        killed.kill()
        killed.communicate()  # returns when all have closed their end too
    assert len(started) == 2
    assert all(map(has_ended, started))


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--featurize", "--weights", "none.npz"], 2, "none.npz: no such weights; give --weights"),
        (["--featurize", "--feature-size", "8"], 2, "--feature-size 8: give at least 32"),
        (["--featurize", "--batch-size", "0"], 2, "--batch-size 0: give at least 1"),
        (["--batch-size", "8"], 2, "--batch-size, --precision, --runtime: these are of --featur"),
        (["--featurize", "--weights", "bad.weights.h5"], 2, "bad.weights.h5: not "),
    ],
)
def test_bad_settings_are_one_line_and_leave_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/0").write_text("a\thttp://127.0.0.1:1/\n")
    Path("bad.weights.h5").write_bytes(b"nothing")
    done = run_here("ingest", "--input", "in", "--output", "out", *words)
    assert done.returncode == status, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert message in line
    assert "Traceback" not in done.stderr
    assert not Path("out").exists() or not files(Path("out"))


@pytest.mark.parametrize(
    ("missing", "words", "said"),
    [
        ("tensorflow", ["--featurize"], "needs tensorflow; pip install 'capstan-captions[fused]'"),
        ("tensorflow", [], "1 rows = 0 images"),
    ],
)
def test_only_features_need_tensorflow(
    tmp_path: Path, missing: str, words: list[str], said: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0").write_text("a\thttp://127.0.0.1:1/\n")
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from capstan.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    places = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, "ingest", *places, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (2 if words else 0), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
