"""`capstan load`: one atomic stream, nothing twice, nothing left of what failed."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from capstan.chunks import cut
from capstan.pachyderm.connect import open_server
from capstan.pachyderm.connection import ServerTarget, parse
from capstan.pachyderm.server import Change, Put
from capstan.testing.pachd import Pachd
from tests.deploy.pachyderm.conftest import Capstan
from tests.examples import examples

ROWS = b"".join(b"caption %d\thttp://a.test/%d.jpg\n" % (n, n) for n in range(25))


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    path = tmp_path / "cc.tsv"
    path.write_bytes(ROWS)
    return path


@pytest.fixture
def rawdata(pachd: Pachd) -> Pachd:
    pachd.repos["rawdata"] = []
    return pachd


def target(pachd: Pachd) -> ServerTarget:
    return ServerTarget(*parse(pachd.address), project="photos")


def test_load_is_what_split_writes(rawdata: Pachd, capstan: Capstan, tsv: Path) -> None:
    assert capstan("load", tsv, "--rows", 10) == 0
    cut(tsv, 10, tsv.parent / "split")
    split = {f"/cc.tsv/{path.name}": path.read_bytes() for path in tsv.parent.glob("split/*")}
    assert rawdata.files("rawdata") == split
    assert len(split) == 3


def test_load_is_one_stream_and_each_file_is_replaced(
    rawdata: Pachd,
    capstan: Capstan,
    tsv: Path,
) -> None:
    assert capstan("load", tsv, "--rows", 10) == 0
    (stream,) = rawdata.streams
    assert [(what, path[-1]) for what, path, size in stream] == [
        (what, str(number)) for number in range(3) for what in ("delete", "add", "add")
    ]
    assert "StartCommit" not in rawdata.calls
    assert len(rawdata.repos["rawdata"]) == 1


def test_load_again_does_nothing(
    rawdata: Pachd,
    capstan: Capstan,
    tsv: Path,
) -> None:
    assert capstan("load", tsv) == capstan("load", tsv) == 0
    assert len(rawdata.streams) == len(rawdata.repos["rawdata"]) == 1
    assert "1 unchanged; nothing to do" in capstan.err
    assert "GetFile" not in rawdata.calls  # the hash was enough


def test_chunks_of_several_blocks_are_compared_by_their_bytes(
    rawdata: Pachd,
    capstan: Capstan,
    tsv: Path,
) -> None:
    rawdata.blocks = True
    assert capstan("load", tsv) == capstan("load", tsv) == 0
    assert "GetFile" in rawdata.calls
    assert len(rawdata.streams) == 1
    tsv.write_bytes(ROWS.replace(b"caption 3", b"Caption 3"))
    assert capstan("load", tsv) == 0
    assert len(rawdata.streams) == 2


def test_what_changed_is_sent_and_what_is_left_over_removed(
    rawdata: Pachd,
    capstan: Capstan,
    tsv: Path,
) -> None:
    assert capstan("load", tsv, "--rows", 5) == 0
    rawdata.put("rawdata", {"/cc.tsv/notes": b"mine", "/other.tsv/0000000000000004": b"other"})
    tsv.write_bytes(ROWS[: len(ROWS) // 2].replace(b"caption 7", b"Caption 7"))
    assert capstan("load", tsv, "--rows", 5) == 0
    changed = {path for _, path, _ in rawdata.streams[-1]}
    assert {path[-1] for path in changed} == {"1", "2", "3", "4"}
    files = rawdata.files("rawdata")
    assert files["/cc.tsv/notes"] == b"mine" and "/other.tsv/0000000000000004" in files
    chunks = [data for path, data in sorted(files.items()) if path.startswith("/cc.tsv/0")]
    assert b"".join(chunks) == tsv.read_bytes()
    assert "3 chunks: 2 written, 1 unchanged, 2 stale removed" in capstan.err


@examples(20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(max_size=8).map(lambda line: b"a\t" + line), min_size=1, max_size=12),
    st.integers(1, 5),
)
def test_any_load_after_any_other_holds_the_tsv(
    rawdata: Pachd, capstan: Capstan, tsv: Path, lines: list[bytes], rows: int
) -> None:
    tsv.write_bytes(b"\n".join(lines))
    assert capstan("load", tsv, "--rows", rows) == 0
    files = rawdata.files("rawdata")
    assert b"".join(files[path] for path in sorted(files)) == tsv.read_bytes()


def test_a_tsv_that_changes_meanwhile_publishes_nothing(
    rawdata: Pachd,
    capstan: Capstan,
    tsv: Path,
) -> None:
    rawdata.put("rawdata", {})
    rawdata.on_call = lambda method: os.utime(tsv, ns=(1, 1)) if method == "WalkFile" else None
    assert capstan("load", tsv, "--rows", 10) == 1
    assert "cc.tsv: changed while it was loaded; run again" in capstan.err
    assert rawdata.broken.wait(10)
    assert len(rawdata.repos["rawdata"]) == 1


def test_a_tsv_that_becomes_shorter_publishes_nothing(
    rawdata: Pachd,
    capstan: Capstan,
    tsv: Path,
) -> None:
    def shorten() -> None:
        if rawdata.received == 1:
            os.truncate(tsv, 100)

    tsv.write_bytes(b"a\tb\n" * 5_000)
    rawdata.on_receive = shorten
    assert capstan("load", tsv, "--rows", 1) == 1
    assert "cc.tsv: " in capstan.err
    assert rawdata.broken.wait(10)
    assert rawdata.repos["rawdata"] == []


def test_a_load_that_is_interrupted_publishes_nothing(
    rawdata: Pachd, capstan: Capstan, tsv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT comes to the main thread, while one of gRPC's reads the file."""
    import signal

    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        if rawdata.received == 1:
            signal.pthread_kill(main, signal.SIGINT)
        rawdata.broken.wait(0.01)

    tsv.write_bytes(b"a\tb\n" * 5_000)
    rawdata.on_receive = interrupt
    assert capstan("load", tsv, "--rows", 1) == 130
    assert rawdata.broken.wait(10)
    assert rawdata.repos["rawdata"] == []


def test_no_more_than_a_few_pieces_are_under_way(rawdata: Pachd) -> None:
    """What a slow server has not taken yet waits in the file, not in memory."""
    rawdata.keep = False
    pulled, most, pieces, size = 0, 0, 64, 1 << 20

    def contents() -> Iterator[bytes]:
        nonlocal pulled, most
        for _ in range(pieces):
            pulled += 1
            most = max(most, pulled - rawdata.received)
            yield bytes(size)

    def changes() -> Iterator[Change]:
        yield Put("/cc.tsv/0", contents())

    with open_server(target(rawdata)) as server:
        server.modify("rawdata", changes())
    assert pulled == pieces
    assert sum(size for _, _, size in rawdata.streams[0]) == pieces * size
    assert most <= 8


@pytest.mark.parametrize(
    ("contents", "says"), [(b"", "empty; give a TSV"), (b"no columns\n", "no tab in line 1")]
)
def test_a_file_that_is_no_tsv_is_not_sent(
    rawdata: Pachd,
    capstan: Capstan,
    tsv: Path,
    contents: bytes,
    says: str,
) -> None:
    tsv.write_bytes(contents)
    assert capstan("load", tsv) == 1
    assert says in capstan.err
    assert not rawdata.streams


def test_settings_that_cannot_be(
    capstan: Capstan,
    tsv: Path,
) -> None:
    assert capstan("load", tsv, "--rows", 0) == 2
    assert "--rows 0: give at least 1" in capstan.err
    assert capstan("load", tsv.with_name("none.tsv")) == 2
    assert "none.tsv: no such file" in capstan.err


def test_repos_that_cannot_be_written_to(
    pachd: Pachd,
    capstan: Capstan,
    tsv: Path,
) -> None:
    assert capstan("load", tsv) == 1
    assert "project photos has no repo rawdata; make it with `capstan up`" in capstan.err
    pachd.put("rawdata", {}, open=True)
    assert capstan("load", tsv) == 1
    assert "is being written to by another program; finish it" in capstan.err
    pachd.put("rawdata", {"/cc.tsv": ROWS})
    assert capstan("load", tsv) == 1
    assert "/cc.tsv is a file there, not a folder" in capstan.err
    assert not pachd.streams


def test_what_the_server_says_of_a_load_is_passed_on(
    rawdata: Pachd,
    capstan: Capstan,
    tsv: Path,
) -> None:
    rawdata.refusal["ModifyFile"] = (grpc.StatusCode.RESOURCE_EXHAUSTED, "the store\nis full")
    assert capstan("load", tsv) == 1
    assert f"{rawdata.address}, project photos: the store is full" in capstan.err
    del rawdata.refusal["ModifyFile"]
    rawdata.on_commit = lambda repo, id: setattr(rawdata.repos[repo][-1], "error", "bad path")
    assert capstan("load", tsv) == 1
    assert "bad path; mend that, and run again" in capstan.err
