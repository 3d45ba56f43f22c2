"""Where the service keeps things below --data, and what a killed one left there."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from capstan.errors import SettingError
from capstan.files import output_directory
from capstan.ingest.job import SPOOLS
from capstan.ingest.journal import remove_journals
from capstan.ingest.service.upload import sync_folder


class ServiceFolders:
    """The folders of one service; raises SettingError for what cannot be written to."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.jobs, self.incoming, self._trash = data / "jobs", data / "incoming", data / "trash"
        for folder in (self.jobs, self.incoming, self._trash):
            output_directory(folder, "--data")

    @property
    def database(self) -> Path:
        """The store's."""
        return self.data / "jobs.sqlite"

    def job(self, id: str) -> Path:
        """Of a job; it may not be there yet."""
        return self.jobs / id

    def shards(self, id: str) -> Path:
        """Of a job's shards."""
        return self.jobs / id / "shards"

    def take_in(self, folder: Path, id: str) -> None:
        """Make an incoming folder that of a job."""
        folder.rename(self.job(id))
        sync_folder(self.jobs)

    def remove(self, id: str) -> None:
        """Delete a job's folder; what a kill leaves of it is swept at the next start."""
        if self.job(id).exists():
            doomed = self._trash / uuid.uuid4().hex
            self.job(id).rename(doomed)
            shutil.rmtree(doomed)

    def tidy(self, id: str) -> None:
        """Remove the empty folders of journals."""
        remove_journals(self.shards(id) / SPOOLS)

    def forget_rows(self, id: str) -> None:
        """Remove the journals of a job's unfinished chunks."""
        shutil.rmtree(self.shards(id) / SPOOLS, ignore_errors=True)

    def sweep(self, known: Collection[str]) -> None:
        """Delete what no known job owns."""
        for folder in (self.incoming, self._trash):
            for path in folder.iterdir():
                shutil.rmtree(path, ignore_errors=True)
        for path in self.jobs.iterdir():
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other services away while the block runs; SettingError if one is there."""
        file = os.open(self.data / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise SettingError(
                f"--data {self.data}: another service works there; stop it, or give another one"
            ) from error
        finally:
            os.close(file)
