"""The settings of `capstan ingest serve`: where it listens, how much it takes, where shards go."""

import argparse
import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from capstan.errors import SettingError
from capstan.ingest.config import (
    DAY,
    Concurrency,
    Flags,
    HttpOptions,
    ImageOptions,
    RetryPolicy,
    flag,
)
from capstan.pachyderm import connection
from capstan.pachyderm.connection import ServerTarget

TOKEN = "CAPSTAN_TOKEN"
PACHYDERM = "pachyderm-"  # what the flags of the cluster begin with here


@dataclass(frozen=True)
class Listen(Flags):
    """where it listens."""

    host: str = flag(
        "127.0.0.1",
        "address; this machine alone can reach the default, 0.0.0.0 is for all and needs a token",
        metavar="ADDRESS",
    )
    port: int = flag(8090, "port; 0 is any free one", 0, 65_535)

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True)
class ServiceLimits(Flags):
    """how much it takes."""

    max_upload: int = flag(16 << 30, "bytes of a TSV that is sent", 1)
    max_jobs: int = flag(2_000, "unfinished jobs, above which submissions are told to wait", 1)
    min_free: int = flag(1 << 30, "bytes free on the disk, below which all jobs pause", 0)


@dataclass(frozen=True)
class Delivery(Flags):
    """whole shards to a repo of a Pachyderm; --pachyderm-repo turns it on."""

    pachyderm_repo: str = flag("", "repo to put shards in, on branch master", metavar="REPO")
    batch_shards: int = flag(16, "shards of one commit at most", 1)
    batch_wait: float = flag(
        60.0, "time that a whole shard waits for others of its job, to share a commit", 0.0, DAY
    )


@dataclass(frozen=True)
class ServiceSettings:
    """All of them."""

    data: Path
    listen: Listen = field(default_factory=Listen)
    token: str | None = field(default=None, repr=False)
    tsv_root: Path | None = None
    limits: ServiceLimits = field(default_factory=ServiceLimits)
    pictures: ImageOptions = field(
        default_factory=ImageOptions
    )  # of jobs that do not say otherwise
    web: HttpOptions = field(default_factory=HttpOptions)
    patience: RetryPolicy = field(default_factory=RetryPolicy)  # the same
    load: Concurrency = field(default_factory=Concurrency)
    delivery: Delivery = field(default_factory=Delivery)
    target: ServerTarget | None = None  # the Pachyderm, if shards go to one

    def __post_init__(self) -> None:
        if self.token is None and not self.listen.is_loopback:
            raise SettingError(
                f"--host {self.listen.host}: whoever reaches it could use it; give a token with "
                f"--token-file or {TOKEN}, or listen on 127.0.0.1"
            )
        if self.tsv_root is not None and not self.tsv_root.is_dir():
            raise SettingError(f"--tsv-root {self.tsv_root}: no such directory")

    @classmethod
    def configure(cls, parser: argparse.ArgumentParser) -> None:
        """Add all flags to a parser."""
        parser.add_argument(
            "--data", type=Path, required=True, metavar="DIR", help="where jobs and shards are kept"
        )
        parser.add_argument(
            "--token-file",
            type=Path,
            metavar="FILE",
            help=f"file with the token that clients have to show; else the text of {TOKEN}",
        )
        parser.add_argument(
            "--token", metavar="TEXT", help="the token itself, which `ps` shows to others"
        )
        parser.add_argument(
            "--tsv-root",
            type=Path,
            metavar="DIR",
            help="folder whose TSVs may be submitted by their path; by default none",
        )
        for group in (
            Listen,
            ServiceLimits,
            ImageOptions,
            HttpOptions,
            RetryPolicy,
            Concurrency,
            Delivery,
        ):
            group.configure(parser)
        connection.add_flags(parser, PACHYDERM)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "ServiceSettings":
        """Read all flags back; raises SettingError for a value out of range."""
        delivery = Delivery.from_arguments(arguments)
        return cls(
            arguments.data,
            Listen.from_arguments(arguments),
            _token(arguments),
            arguments.tsv_root,
            ServiceLimits.from_arguments(arguments),
            ImageOptions.from_arguments(arguments),
            HttpOptions.from_arguments(arguments),
            RetryPolicy.from_arguments(arguments),
            Concurrency.from_arguments(arguments),
            delivery,
            connection.find(arguments, prefix=PACHYDERM) if delivery.pachyderm_repo else None,
        )


def _token(arguments: argparse.Namespace) -> str | None:
    """The token from its flags or the environment; SettingError for one that cannot be used."""
    path: Path | None = arguments.token_file
    if arguments.token is not None and path is not None:
        raise SettingError("--token, --token-file: give one of them")
    try:
        text = path.read_text() if path else arguments.token
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"--token-file {path}: cannot be read ({error})") from error
    if text is None:
        text = os.environ.get(TOKEN) or None
    token = text.strip() if text is not None else None
    if token is not None and (not token.isascii() or not token.isprintable() or not token):
        raise SettingError("the token is empty or not of printable ASCII; give another one")
    return token
