import argparse
from pathlib import Path

import pytest

from capstan.errors import SettingError
from capstan.ingest.config import (
    Concurrency,
    HttpOptions,
    ImageOptions,
    IngestSettings,
    RetryPolicy,
)

NEEDED = ["--input", "in", "--output", "out"]


def parse(*words: str) -> IngestSettings:
    parser = argparse.ArgumentParser()
    IngestSettings.configure(parser)
    return IngestSettings.from_arguments(parser.parse_args([*NEEDED, *words]))


def test_flags_default_to_the_fields_defaults() -> None:
    assert parse() == IngestSettings(Path("in"), Path("out"))


def test_flags_are_read() -> None:
    settings = parse("--resize-mode", "no", "--timeout", "2.5", "--allow-private", "--per-host=3")
    assert settings.pictures == ImageOptions(resize_mode="no")
    assert settings.web == HttpOptions(timeout=2.5, allow_private=True)
    assert settings.load == Concurrency(per_host=3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ImageOptions(image_size=0),
        lambda: ImageOptions(jpeg_quality=101),
        lambda: ImageOptions(resize_mode="stretch"),
        lambda: HttpOptions(timeout=float("nan")),
        lambda: HttpOptions(timeout=float("inf")),
        lambda: HttpOptions(contact="me\r\nX-Evil: 1"),
        lambda: RetryPolicy(attempts=0),
        lambda: Concurrency(in_flight=0),
    ],
)
def test_values_out_of_range_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(SettingError, match="--"):
        make()


def test_processes_never_outnumber_chunks_or_connections_to_a_host() -> None:
    many = IngestSettings(Path("in"), Path("out"), load=Concurrency(processes=8, per_host=5))
    assert [many.processes(chunks) for chunks in (1, 3, 100)] == [1, 3, 5]
    assert IngestSettings(Path("in"), Path("out")).processes(1_000) >= 1


def test_identity_changes_with_what_changes_bytes_only() -> None:
    identity = parse().identity("abc")
    assert (
        parse("--attempts", "9", "--processes", "1", "--timeout", "1").identity("abc") == identity
    )
    assert parse("--image-size", "128").identity("abc") != identity
    assert parse("--allow-private").identity("abc") != identity
    assert parse().identity("abd") != identity
