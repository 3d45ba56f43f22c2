import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capstan.errors import DataError, SettingError
from capstan.files import FileRange
from capstan.ingest import journal as spool_module
from capstan.ingest.journal import Frame, Journal, no_envelope, remove_journals
from capstan.records import Answer, Failure, Image, Outcome, Reason, Row
from capstan.shards import Piece, outcome_row, tar_envelope

RESULTS = st.builds(
    Image,
    data=st.binary(max_size=200),
    width=st.integers(1, 9),
    height=st.integers(1, 9),
    original_width=st.integers(1, 9),
    original_height=st.integers(1, 9),
    sha256=st.just(""),
).map(lambda image: replace(image, sha256=hashlib.sha256(image.data).hexdigest())) | st.builds(
    Failure, st.sampled_from(Reason)
)
ANSWERS = st.builds(
    Answer,
    http_status=st.none() | st.integers(100, 999),
    attempts=st.integers(1, 5),
    bytes=st.integers(0, 1 << 40),
    final_url=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)
IDENTITY = {"source_sha256": "abc", "settings": {"image_size": 256}}
PICTURE = Image(b"picture", 3, 2, 6, 4, hashlib.sha256(b"picture").hexdigest())


def row(index: int) -> Row:
    return Row(index, f"k{index}", "caption", "http://h/")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    outcomes=st.dictionaries(st.integers(0, 50), st.tuples(ANSWERS, RESULTS), max_size=8),
    frame=st.sampled_from([no_envelope, tar_envelope]),
    hashed=st.booleans(),
    data=st.data(),
)
def test_a_kill_at_any_byte_loses_what_was_torn_and_no_more(
    tmp_path: Path,
    outcomes: dict[int, tuple[Answer, Image | Failure]],
    frame: Frame,
    hashed: bool,
    data: st.DataObject,
) -> None:
    path = tmp_path / "spools" / "cc.tsv" / "0"
    path.unlink(missing_ok=True)
    ends = []
    with Journal(path, IDENTITY, frame, hashed) as journal:
        for index, (answer, result) in outcomes.items():
            journal.append(row(index), answer, result)
            ends.append(path.stat().st_size)
    cut = data.draw(st.integers(0, path.stat().st_size))
    with path.open("r+b") as file:
        file.truncate(cut)

    with Journal(path, IDENTITY, frame, hashed) as journal:
        whole = [index for index, end in zip(outcomes, ends, strict=True) if end <= cut]
        assert len(journal) == len(whole) == journal.reasons.total()
        for index in whole:
            assert index in journal
            assert journal.read(row(index)) == Outcome(row(index), *outcomes[index])
        journal.append(row(99), Answer(), PICTURE)
        assert journal.read(row(99)) == Outcome(row(99), Answer(), PICTURE)


def stretches(pieces: Sequence[Piece]) -> list[FileRange]:
    """Pieces that are all in a file."""
    assert all(isinstance(piece, FileRange) for piece in pieces)
    return [piece for piece in pieces if isinstance(piece, FileRange)]


@pytest.mark.parametrize("url_length", [10, 5_000])  # so that a record's start is longer than usual
@pytest.mark.parametrize("result", [PICTURE, Failure(Reason.DNS)])
def test_a_line_of_a_shard_is_ready_made(
    tmp_path: Path, result: Image | Failure, url_length: int
) -> None:
    outcome = Outcome(row(0), Answer(200, 2, 7, "http://h/".ljust(url_length, "2")), result)
    with Journal(tmp_path / "spool", IDENTITY, tar_envelope) as journal:
        journal.append(row(0), outcome.answer, result)
        columns, files = journal.line(row(0))
        body = b"".join(os.pread(file, size, offset) for file, offset, size in stretches(files))
    assert {name: value for name, value in outcome_row(outcome).items() if value is not None} == {
        name: value for name, value in columns.items() if value is not None
    }
    head, tail = tar_envelope(row(0), PICTURE)
    assert body == (head + b"picture" + tail if result is PICTURE else b"")


def test_a_damaged_record_ends_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with Journal(path, IDENTITY) as journal:
        journal.append(row(0), Answer(), PICTURE)
        end = path.stat().st_size
        journal.append(row(1), Answer(), PICTURE)
        journal.append(row(2), Answer(), PICTURE)
    contents = bytearray(path.read_bytes())
    contents[end + 20] ^= 1
    path.write_bytes(contents)
    with Journal(path, IDENTITY) as journal:
        assert (0 in journal, 1 in journal, 2 in journal) == (True, False, False)
        assert path.stat().st_size == end


@pytest.mark.parametrize(
    "contents", [b"", b"\xff" * 100, b"\0" * 12, b"no spool at all, but some other file"]
)
def test_what_is_no_spool_is_thrown_away(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "spool"
    path.write_bytes(contents)
    with Journal(path, IDENTITY) as journal:
        assert len(journal) == 0
        journal.append(row(5), Answer(), Failure(Reason.DNS))
    with Journal(path, IDENTITY) as journal:
        assert repr(journal) == f"<Spool {path}: 1 rows, {path.stat().st_size} bytes>"


def test_a_spool_of_other_settings_is_thrown_away(tmp_path: Path) -> None:
    with Journal(tmp_path / "spool", IDENTITY) as journal:
        journal.append(row(5), Answer(), Failure(Reason.DNS))
    with Journal(tmp_path / "spool", IDENTITY | {"settings": {"image_size": 128}}) as journal:
        assert len(journal) == 0
    with Journal(tmp_path / "spool", IDENTITY) as journal:
        assert len(journal) == 0


def test_two_runs_do_not_share_a_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "LOCK_PATIENCE", 0.0)
    with (
        Journal(tmp_path / "spool", IDENTITY),
        pytest.raises(SettingError, match="another run works on this"),
    ):
        Journal(tmp_path / "spool", IDENTITY)


@pytest.mark.parametrize("read", [Journal.read, Journal.line])
def test_a_spool_altered_in_use_is_an_error(
    tmp_path: Path, read: Callable[[Journal, Row], object]
) -> None:
    with Journal(tmp_path / "spool", IDENTITY, tar_envelope) as journal:
        journal.append(row(0), Answer(), PICTURE)
        with pytest.raises(DataError, match="does not hold row 1"):
            read(journal, row(1))
        whole = (tmp_path / "spool").read_bytes()
        torn = whole[:-1] + bytes((whole[-1] ^ 1,))  # in what comes after the picture
        for altered in (torn, b"", bytes(1_000), b"something else" * 100):
            (tmp_path / "spool").write_bytes(altered)
            with pytest.raises(DataError, match="altered while in use"):
                read(journal, row(0))


def test_only_empty_trees_are_removed(tmp_path: Path) -> None:
    (tmp_path / "spools" / "a" / "b").mkdir(parents=True)
    (tmp_path / "spools" / "c").mkdir()
    (tmp_path / "spools" / "c" / "0").touch()
    remove_journals(tmp_path / "spools")
    assert [path.name for path in tmp_path.rglob("*")] == ["spools", "c", "0"]
    remove_journals(tmp_path / "none")
