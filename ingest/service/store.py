"""What must outlive the service: jobs, their chunks and the keys of submissions, in SQLite.

One thread writes. Whatever waits is committed together, so that many clients share the disk's
slowness; a write that was waited for is on the disk. On a full disk writes that nobody waits for
are tried again until there is room.
"""

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capstan.errors import DataError
from capstan.ingest.service.jobs import FullError

logger = logging.getLogger(__name__)

VERSION = 1
MAGIC = 0x63617073  # `caps`: the file's application id
AGAIN = 0.5  # seconds until a full disk is tried again
SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, options TEXT NOT NULL, state TEXT NOT NULL, why TEXT,
    created REAL NOT NULL, started REAL, finished REAL, retry TEXT NOT NULL DEFAULT '',
    rows INTEGER NOT NULL, chunks INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0, images INTEGER NOT NULL DEFAULT 0,
    failures TEXT NOT NULL DEFAULT '{}', bytes INTEGER NOT NULL DEFAULT 0,
    shards INTEGER NOT NULL DEFAULT 0, delivered INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_by_name ON jobs (name);
CREATE TABLE chunks (
    job TEXT NOT NULL REFERENCES jobs ON DELETE CASCADE, number INTEGER NOT NULL,
    rows INTEGER NOT NULL, data BLOB, whole INTEGER NOT NULL DEFAULT 0,
    images INTEGER, failures TEXT, delivered INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE TABLE keys (key TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs ON DELETE CASCADE)
WITHOUT ROWID;
CREATE INDEX keys_by_job ON keys (job);
"""
Statement = tuple[str, Sequence[Any]]


@dataclass(slots=True, eq=False)
class _Write:
    """Statements that are done together or not at all."""

    statements: Iterable[Statement]
    waiting: "asyncio.Future[None] | None" = None  # of whom it was promised to
    error: sqlite3.Error | None = field(default=None)


class Database:
    """The database of one service; made and read in its event loop."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        _check(path)
        self._reader, self._writer = _connect(path), _connect(path)
        self._changed = threading.Condition()
        self._writes: list[_Write] = []
        self._closing = False
        self.is_full = False  # the disk, when it was last written to
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Store {len(self._writes)} writes waiting>"

    def read(self, sql: str, *values: Any) -> Iterator[sqlite3.Row]:
        """Rows as of the last commit; microseconds for what an index finds."""
        rows: sqlite3.Cursor = self._reader.execute(sql, values)
        return rows

    async def write(self, *statements: Statement) -> None:
        """Write all or nothing, on disk when this returns.

        Raises sqlite3.IntegrityError for what is there, FullError when the disk has no room.
        """
        write = _Write(statements, self._loop.create_future())
        assert write.waiting
        self._put(write)
        await asyncio.shield(write.waiting)

    def note(self, *statements: Statement) -> None:
        """Write in turn, at the latest when the store is closed; a full disk is waited for."""
        self._put(_Write(statements))

    async def noted(self) -> None:
        """Wait until all that was noted so far is on disk, be it that the disk is full."""
        while self._writes or self.is_full:
            with suppress(FullError):
                await self.write()
                return
            await asyncio.sleep(AGAIN)

    async def close(self) -> None:
        """Write what waits, once, and close the file."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        self._reader.close()

    def _put(self, write: _Write) -> None:
        with self._changed:
            self._writes.append(write)
            self._changed.notify()

    # In the thread

    def _run(self) -> None:
        try:
            self._write_all()
        finally:
            if not self._closing:  # by a defect, or a database that somebody has spoilt
                logger.critical("jobs cannot be written down any more", exc_info=True)
                os._exit(1)  # nothing can be promised to anyone: better to be started again

    def _write_all(self) -> None:
        while writes := self._next():
            try:
                self._commit(writes)
            except sqlite3.OperationalError as error:
                with suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                self._wait_for_room(writes, error)
            else:
                self.is_full = False
                self._tell(writes)
        self._writer.close()

    def _next(self) -> list[_Write]:
        with self._changed:
            while not (self._writes or self._closing):
                self._changed.wait()
            writes, self._writes = self._writes, []
            return writes

    def _commit(self, writes: Iterable[_Write]) -> None:
        execute = self._writer.execute
        execute("BEGIN IMMEDIATE")
        for write in writes:
            execute("SAVEPOINT one")
            try:
                for sql, values in write.statements:
                    execute(sql, values)
            except sqlite3.IntegrityError as error:
                execute("ROLLBACK TO one")
                write.error = error
            execute("RELEASE one")
        execute("COMMIT")

    def _wait_for_room(self, writes: Sequence[_Write], error: sqlite3.OperationalError) -> None:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_FULL, *_IO_ERRORS):
            raise error
        self.is_full = True
        for write in writes:
            write.error = error
        self._tell([write for write in writes if write.waiting])
        with self._changed:
            self._writes = [write for write in writes if not write.waiting] + self._writes
            if self._closing:
                self._writes = []  # what they tell is found again at the next start
            else:
                self._changed.wait(AGAIN)

    def _tell(self, writes: Iterable[_Write]) -> None:
        for write in writes:
            if write.waiting:
                self._loop.call_soon_threadsafe(_resolve, write.waiting, write.error)
            elif write.error and isinstance(write.error, sqlite3.IntegrityError):
                raise write.error


_IO_ERRORS = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC)


def _resolve(waiting: "asyncio.Future[None]", error: sqlite3.Error | None) -> None:
    if waiting.done():
        return
    if isinstance(error, sqlite3.OperationalError):
        waiting.set_exception(FullError(f"the disk has no room ({error}); make some"))
    elif error:
        waiting.set_exception(error)
    else:
        waiting.set_result(None)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _check(path: Path) -> None:
    """Make a database of this version if there is none; DataError for any other."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            ids = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _IDS]
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                marks = "".join(f"PRAGMA {name} = {value};" for name, value in _IDS.items())
                connection.executescript(f"BEGIN;{SCHEMA}{marks}COMMIT;")
                return
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path}: cannot be used ({error}); give another --data") from error
    if ids != list(_IDS.values()):
        raise DataError(
            f"{path}: version {ids[1]} of the service's jobs, but this capstan reads version "
            f"{VERSION}; use the one that wrote it, or give another --data"
        )


_IDS = {"application_id": MAGIC, "user_version": VERSION}
