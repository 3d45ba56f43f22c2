import argparse
from pathlib import Path

import pytest

from capstan.errors import SettingError
from capstan.ingest.config import Load, Patience, Pictures, Settings, Web

NEEDED = ["--input", "in", "--output", "out"]


def parse(*words: str) -> Settings:
    parser = argparse.ArgumentParser()
    Settings.configure(parser)
    return Settings.from_arguments(parser.parse_args([*NEEDED, *words]))


def test_flags_default_to_the_fields_defaults() -> None:
    assert parse() == Settings(Path("in"), Path("out"))


def test_flags_are_read() -> None:
    settings = parse("--resize-mode", "no", "--timeout", "2.5", "--allow-private", "--per-host=3")
    assert settings.pictures == Pictures(resize_mode="no")
    assert settings.web == Web(timeout=2.5, allow_private=True)
    assert settings.load == Load(per_host=3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pictures(image_size=0),
        lambda: Pictures(jpeg_quality=101),
        lambda: Pictures(resize_mode="stretch"),
        lambda: Web(timeout=float("nan")),
        lambda: Web(timeout=float("inf")),
        lambda: Web(contact="me\r\nX-Evil: 1"),
        lambda: Patience(attempts=0),
        lambda: Load(in_flight=0),
    ],
)
def test_values_out_of_range_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(SettingError, match="--"):
        make()


def test_processes_never_outnumber_chunks_or_connections_to_a_host() -> None:
    many = Settings(Path("in"), Path("out"), load=Load(processes=8, per_host=5))
    assert [many.processes(chunks) for chunks in (1, 3, 100)] == [1, 3, 5]
    assert Settings(Path("in"), Path("out")).processes(1_000) >= 1


def test_identity_changes_with_what_changes_bytes_only() -> None:
    identity = parse().identity("abc")
    assert (
        parse("--attempts", "9", "--processes", "1", "--timeout", "1").identity("abc") == identity
    )
    assert parse("--image-size", "128").identity("abc") != identity
    assert parse("--allow-private").identity("abc") != identity
    assert parse().identity("abd") != identity
