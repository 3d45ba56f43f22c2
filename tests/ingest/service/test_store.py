import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from capstan.errors import DataError
from capstan.ingest.service.jobs import FullError
from capstan.ingest.service.store import Database, Statement


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "jobs.sqlite")
    yield opened
    await opened.close()


def job(id: str) -> Statement:
    columns = "id, name, options, state, created, rows, chunks"
    values = (id, "a.tsv", "{}", "queued", 0.0, 1, 1)
    return f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values


def ids(store: Database) -> list[str]:
    return [row["id"] for row in store.read("SELECT id FROM jobs ORDER BY id")]


async def test_writes_that_wait_share_commits_and_fail_each_for_itself(store: Database) -> None:
    ended = await asyncio.gather(
        *(store.write(job(str(number % 50))) for number in range(100)), return_exceptions=True
    )
    assert ended[:50] == [None] * 50
    assert all(isinstance(error, sqlite3.IntegrityError) for error in ended[50:])
    assert len(ids(store)) == 50


async def test_statements_of_a_write_are_done_together_or_not_at_all(store: Database) -> None:
    await store.write(job("1"))
    with pytest.raises(sqlite3.IntegrityError):
        await store.write(job("2"), job("1"))
    assert ids(store) == ["1"]


async def test_a_note_is_written_before_what_is_waited_for_later(store: Database) -> None:
    store.note(job("1"))
    await store.write(job("2"))
    assert ids(store) == ["1", "2"]


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    store = Database(path)
    store.note(job("1"))
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT id FROM jobs").fetchall() == [("1",)]


async def test_on_a_full_disk_promises_fail_and_notes_wait(store: Database) -> None:
    pages = next(store.read("PRAGMA page_count"))[0]
    limit(store, pages)
    long = ("UPDATE jobs SET name = ?", ("x" * 100_000,))
    await store.write(job("1"))
    with pytest.raises(FullError):
        await store.write(long)
    store.note(long)
    with pytest.raises(FullError):
        await store.write(job("2"))
    assert store.is_full
    limit(store, 1 << 20)
    await store.noted()
    await store.write(job("3"))
    names = [row["name"] for row in store.read("SELECT name FROM jobs ORDER BY id")]
    assert names == ["x" * 100_000, "a.tsv"]


def limit(store: Database, pages: int) -> None:
    """Let the database have no more pages: SQLite then says what it says of a full disk."""
    store._writer.execute(f"PRAGMA max_page_count = {pages}")


def other_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE a (b); PRAGMA user_version = 99;")


@pytest.mark.parametrize("spoil", [other_version, lambda path: path.write_bytes(b"x" * 5000)])
async def test_what_is_no_store_of_ours_is_refused(
    spoil: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "jobs.sqlite"
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(DataError, match="--data"):
        Database(path)
    assert path.read_bytes() == before


def test_a_service_whose_database_is_spoilt_ends_and_says_so(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from capstan.ingest.service.store import Database

async def main():
    store = Database(Path(sys.argv[1]))
    await store.write(("DROP TABLE jobs", ()))
    await store.write(("DELETE FROM jobs", ()))

asyncio.run(main())
"""
    words = [sys.executable, "-c", program, str(tmp_path / "jobs.sqlite")]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "jobs cannot be written down any more" in ended.stderr
    assert "no such table: jobs" in ended.stderr
