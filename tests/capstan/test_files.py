"""Files are whole or absent, whatever happens to the writer."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capstan.errors import DataError, SettingError
from capstan.files import (
    FileRange,
    atomic_write,
    copy_range,
    data_files,
    input_directory,
    output_directory,
    write_pieces,
)

KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from capstan.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"new, but not whole")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_exception_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_kill_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    path = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert data_files(tmp_path) == []
    with atomic_write(path) as file:
        file.write(b"whole")
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_data_files_are_sorted_and_visible(tmp_path: Path) -> None:
    for name in ("b/2.tar", "b/1.tar", "a.tar", ".hidden/3.tar", ".4.tar", "b/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in data_files(tmp_path, ".tar")]
    assert found == ["a.tar", "b/1.tar", "b/2.tar"]


def test_directories_that_cannot_be_used_name_flag_and_cure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="no such directory; give an existing one with --input"):
        input_directory(tmp_path / "absent")
    with pytest.raises(
        SettingError, match=r"cannot write there .* another directory with --output"
    ):
        output_directory(tmp_path / "file" / "folder")


def test_more_pieces_than_the_system_takes_at_once(tmp_path: Path) -> None:
    pieces = [b"%d " % number for number in range(5_000)]
    with (tmp_path / "file").open("wb") as file:
        end = write_pieces(file.fileno(), [b"before ", *pieces], 0)
        assert write_pieces(file.fileno(), [memoryview(b"after")], end) == end + 5
    assert (tmp_path / "file").read_bytes() == b"".join([b"before ", *pieces, b"after"])


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may become longer; a first write takes as much as there is room for."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_pieces_that_find_no_room_are_an_error(tmp_path: Path) -> None:
    with (
        (tmp_path / "file").open("wb") as file,
        room_for(10),
        pytest.raises(OSError, match="File too large"),
    ):
        write_pieces(file.fileno(), [b"eight by", b"tes more"], 0)
    assert (tmp_path / "file").read_bytes() == b"eight byte"


def refuse(*_: object) -> int:
    """As file systems do that cannot copy."""
    raise OSError(errno.EOPNOTSUPP, "not there")


@pytest.mark.parametrize("can_copy", [True, False])
def test_a_stretch_of_a_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_copy: bool
) -> None:
    if not can_copy:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    data = os.urandom(300_000)
    (tmp_path / "old").write_bytes(data)
    with (tmp_path / "old").open("rb") as old, (tmp_path / "new").open("wb") as new:
        end = copy_range(FileRange(old.fileno(), 7, 200_000), new.fileno(), 0)
        assert end == 200_000
        assert copy_range(FileRange(old.fileno(), 3, 5), new.fileno(), end) == end + 5
        with pytest.raises(DataError, match="has ended 2 bytes too early"):
            copy_range(FileRange(old.fileno(), 299_999, 3), new.fileno(), end)
    assert (tmp_path / "new").read_bytes()[:-1] == data[7:200_007] + data[-1:] + data[4:7]


def test_a_stretch_that_finds_no_room_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old and long")
    with (
        (tmp_path / "old").open("rb") as old,
        (tmp_path / "new").open("wb") as new,
        room_for(10),
        pytest.raises(OSError, match="File too large"),
    ):
        copy_range(FileRange(old.fileno(), 0, 12), new.fileno(), 0)
