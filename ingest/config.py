"""The settings of `capstan ingest`: each is one field, one flag and one check."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeVar

from capstan.errors import SettingError
from capstan.ingest.scheduling.host import RETRYABLE, HostLimits
from capstan.records import Reason

T = TypeVar("T")
DAY = 86_400.0


def flag(
    default: T,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
) -> T:
    """A dataclass field that is also a command line flag."""
    metadata: dict[str, Any] = {"help": help, "minimum": minimum, "maximum": maximum}
    metadata |= {"choices": choices, "metavar": metavar}
    value: T = field(default=default, metadata=metadata)
    return value


@dataclass(frozen=True)
class Flags:
    """Settings whose fields are flags; raises SettingError for a value out of range."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value, bounds = getattr(self, item.name), item.metadata
            name = f"--{item.name.replace('_', '-')}"
            if bounds["choices"] and value not in bounds["choices"]:
                raise SettingError(f"{name} {value}: choose from {', '.join(bounds['choices'])}")
            if isinstance(value, str) and not value.isprintable():
                raise SettingError(f"{name} {value!r}: give printable characters on one line")
            if bounds["minimum"] is not None and not value >= bounds["minimum"]:
                raise SettingError(f"{name} {value}: give at least {bounds['minimum']:,}")
            if bounds["maximum"] is not None and not value <= bounds["maximum"]:
                raise SettingError(f"{name} {value}: give at most {bounds['maximum']:,}")

    @classmethod
    def configure(cls, parser: argparse.ArgumentParser) -> None:
        """Add the flags to a parser, under the class's docstring as their title."""
        group = parser.add_argument_group((cls.__doc__ or "").rstrip("."))
        for item in fields(cls):
            name, default = f"--{item.name.replace('_', '-')}", item.default
            details: dict[str, Any] = {"help": item.metadata["help"]}
            if isinstance(default, bool):
                details["action"] = "store_true"
            else:
                details |= {"type": type(default), "default": default}
                details["choices"] = item.metadata["choices"]
                metavar = item.metadata["metavar"] or _metavar(default)
                details["metavar"] = None if details["choices"] else metavar
            group.add_argument(name, **details)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        """Read the flags back."""
        return cls(**{item.name: getattr(arguments, item.name) for item in fields(cls)})


def _metavar(default: object) -> str:
    return {int: "N", float: "SECONDS", str: "TEXT"}[type(default)]


@dataclass(frozen=True)
class ImageOptions(Flags):
    """what is stored."""

    resize_mode: str = flag(
        "keep_ratio",
        "keep_ratio: shorter side to the image size; border: longer side, white bars to a square; "
        "center_crop: shorter side, then the middle square; no: size and JPEG bytes as they came. "
        "None enlarges",
        choices=("keep_ratio", "border", "center_crop", "no"),
    )
    image_size: int = flag(256, "pixels that the resize mode aims at", 1, 16_384)
    jpeg_quality: int = flag(95, "quality of the stored JPEG", 1, 100)
    max_pixels: int = flag(50_000_000, "pixels above which a picture is not decoded", 1)
    min_side: int = flag(1, "pixels below which a side is too short to keep the picture", 1)
    check: str = flag(
        "full",
        "full: every picture is decoded, so that damage in it is seen; header: of JPEGs that "
        "--resize-mode no keeps as they came, only the structure is looked at: many times faster",
        choices=("full", "header"),
    )
    keep_metadata: bool = flag(
        False, "keep EXIF, profiles and comments in JPEGs that --resize-mode no keeps as they came"
    )


@dataclass(frozen=True)
class HttpOptions(Flags):
    """how one address is asked."""

    timeout: float = flag(30.0, "time for one request: connection and body", 0.001, DAY)
    connect_timeout: float = flag(10.0, "time for one connection", 0.001, DAY)
    max_bytes: int = flag(32 << 20, "bytes of a body, unpacked, above which it is dropped", 1)
    max_redirects: int = flag(5, "redirects followed", 0)
    contact: str = flag("", "web page or mail address that the User-Agent gives to hosts")
    user_agent: str = flag("", "User-Agent in place of capstan's own")
    ignore_opt_out: bool = flag(False, "keep pictures whose X-Robots-Tag says noai or noimageai")
    content_usage: bool = flag(False, "leave out pictures whose Content-Usage says train-ai=n")
    robots: bool = flag(False, "ask each host's robots.txt first (RFC 9309) and obey it")
    allow_private: bool = flag(False, "also connect to private and local addresses")


@dataclass(frozen=True)
class RetryPolicy(Flags):
    """how often a row is tried; a waiting row holds no connection."""

    attempts: int = flag(3, "attempts at a row whose failure may pass", 1)
    deadline: float = flag(
        120.0, "time for a row from its first attempt, waits and Retry-After included", 0.001, DAY
    )
    host_patience: float = flag(
        30.0, "time of nothing but trouble after which a host's rows are given up", 0.0, DAY
    )
    first_wait: float = flag(1.0, "wait after the first attempt, doubled after each", 0.0, DAY)
    longest_wait: float = flag(30.0, "longest wait, unless the host asks for more", 0.0, DAY)


@dataclass(frozen=True)
class Concurrency(Flags):
    """how much at once."""

    processes: int = flag(0, "processes, each with its own event loop; 0: one per core", 0)
    in_flight: int = flag(256, "rows being fetched or decoded at a time, per process", 1)
    aside: int = flag(
        2_048,
        "further rows that wait for more than half a second, or for a failing host, per process",
        0,
    )
    per_host: int = flag(
        16, "most connections to one host at a time, over all processes; fewer while it errs", 1
    )


def reasons(text: str) -> frozenset[str]:
    """Reasons divided by commas; raises what argparse shows for one that does not exist."""
    names = frozenset(text.split(",")) - {""}
    if unknown := names - set(Reason):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))}: choose from {', '.join(sorted(Reason))}"
        )
    return names


@dataclass(frozen=True)
class IngestSettings:
    """All of them."""

    input: Path
    output: Path
    pictures: ImageOptions = field(default_factory=ImageOptions)
    web: HttpOptions = field(default_factory=HttpOptions)
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    load: Concurrency = field(default_factory=Concurrency)
    retry_failed: frozenset[str] = frozenset()  # reasons
    statistics: Path | None = None  # a directory

    @classmethod
    def configure(cls, parser: argparse.ArgumentParser) -> None:
        """Add all flags to a parser."""
        parser.add_argument(
            "--input", type=Path, required=True, metavar="DIR", help="chunks, from `capstan split`"
        )
        parser.add_argument(
            "--output", type=Path, required=True, metavar="DIR", help="where shards go"
        )
        parser.add_argument(
            "--retry-failed",
            type=reasons,
            nargs="?",
            const=",".join(sorted(RETRYABLE)),
            default="",
            metavar="REASONS",
            help="also try again the rows of finished shards that failed: for reasons that may "
            "pass, or for those given, divided by commas",
        )
        parser.add_argument(
            "--statistics",
            type=Path,
            metavar="DIR",
            help="where to write what the run saw of the web: hosts, statuses, latencies, rates",
        )
        for group in (ImageOptions, HttpOptions, RetryPolicy, Concurrency):
            group.configure(parser)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Self:
        """Read all flags back; raises SettingError for a value out of range."""
        return cls(
            arguments.input,
            arguments.output,
            ImageOptions.from_arguments(arguments),
            HttpOptions.from_arguments(arguments),
            RetryPolicy.from_arguments(arguments),
            Concurrency.from_arguments(arguments),
            arguments.retry_failed,
            arguments.statistics,
        )

    def identity(self, source_sha256: str) -> dict[str, Any]:
        """What a shard's bytes depend on besides the web: its chunk and some of the settings."""
        web = {
            name: getattr(self.web, name)
            for name in (
                "max_bytes",
                "max_redirects",
                "ignore_opt_out",
                "content_usage",
                "robots",
                "allow_private",
            )
        }
        return {"source_sha256": source_sha256, "settings": asdict(self.pictures) | web}

    def processes(self, chunks: int) -> int:
        """How many processes to start: never more than chunks, or connections to a host."""
        wanted = self.load.processes or len(os.sched_getaffinity(0))
        return max(1, min(wanted, chunks, self.load.per_host))

    def host_limits(self, processes: int) -> HostLimits:
        """How each of so many processes treats hosts."""
        most = self.load.per_host // processes
        return HostLimits(most, self.patience.host_patience, self.patience.deadline)

    def decoders(self, processes: int) -> int:
        """How many decoder processes each of so many processes has: one per core in all."""
        return max(1, len(os.sched_getaffinity(0)) // processes)
