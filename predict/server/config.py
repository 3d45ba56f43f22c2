"""The settings of `capstan serve`."""

import argparse
import re
from dataclasses import dataclass

from capstan.errors import SettingError

NAME = "capstan"  # of the model, in URLs
VERSION = "1"  # of the model, in URLs; a server has only one
UNITS = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0}


@dataclass(frozen=True)
class ServerLimits:
    """What the server takes on; raises SettingError for what cannot be."""

    max_batch: int = 32  # pictures computed at once
    max_wait: float = 0.010  # seconds that a batch's first picture waits for others
    queue: int = 48  # pictures in hand at a time, those computed among them: a wait of two batches
    explanations: int = 2  # of them those to explain; one at a time is computed
    max_pictures: int = 32  # of one request
    max_bytes: int = 16 << 20  # of one request's body
    timeout: float = 30.0  # seconds to read a request, and again to answer it

    def __post_init__(self) -> None:
        for name in ("max_batch", "queue", "max_pictures", "max_bytes"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise SettingError(f"--{flag} {getattr(self, name)}: give at least 1")
        if self.explanations < 0:
            raise SettingError(f"--explanations {self.explanations}: give 0 or more")
        if self.timeout <= 0:
            raise SettingError(f"--timeout {self.timeout:g}s: give more than 0")
        if self.queue < self.max_pictures:
            raise SettingError(
                f"--queue {self.queue}: a request may have {self.max_pictures} pictures; give at "
                f"least as much, or --max-pictures {self.queue}"
            )

    @classmethod
    def configure(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags."""
        group = parser.add_argument_group("limits")
        for flag, kind, value, text in (
            ("--max-batch", int, cls.max_batch, "pictures computed at once"),
            (
                "--max-wait",
                duration,
                "10ms",
                "time that a picture waits for others, where others are about",
            ),
            ("--queue", int, cls.queue, "pictures in hand, above which requests get 429"),
            (
                "--explanations",
                int,
                cls.explanations,
                "pictures in hand to explain (50 times the work of a caption), above which such "
                "requests get 429; 0 for none at all",
            ),
            ("--max-pictures", int, cls.max_pictures, "pictures of one request"),
            ("--max-bytes", int, cls.max_bytes, "bytes of one request's body"),
            ("--timeout", duration, "30s", "time to read a request, and again to answer it"),
        ):
            metavar = "N" if kind is int else "TIME"
            group.add_argument(flag, type=kind, default=value, metavar=metavar, help=text)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "ServerLimits":
        """Read the flags back."""
        return cls(**{name: getattr(arguments, name) for name in cls.__dataclass_fields__})


def duration(text: str) -> float:
    """Seconds, from `10ms`, `2s`, `1m` or a bare number of seconds."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: give a time such as 10ms, 2s or 1m")
    return float(match[1]) * UNITS[match[2]]
