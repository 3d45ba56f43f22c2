"""The `capstan` command: finds a subcommand, imports only that one, maps errors to exit statuses.

A subcommand is a module with `configure(parser)`, which adds its flags, and `run(arguments)`.
Exit status: 0 done, 1 failed, 2 usage or setting, 130 interrupted.
"""

import argparse
import errno
import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from capstan import __version__
from capstan.errors import CapstanError
from capstan.progress import INTERVAL_VARIABLE

logger = logging.getLogger(__name__)

LOG_FORMAT_VARIABLE = "CAPSTAN_LOG_FORMAT"
USER_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@dataclass(frozen=True)
class Command:
    """A subcommand: where it lives and which extra of `setup.cfg` it needs."""

    module: str
    summary: str
    extra: str | None = None


COMMANDS = {
    "split": Command("capstan.ingest.split", "cut a TSV of caption<TAB>url into chunks"),
    "ingest": Command(
        "capstan.ingest.fused.command", "download a TSV's pictures into image shards", "ingest"
    ),
    "ingest serve": Command(
        "capstan.ingest.service.command",
        "download TSVs that are submitted over HTTP, as a service",
        "ingestd",
    ),
    "featurize": Command(
        "capstan.featurize.command", "turn image shards into ResNet50 feature shards", "featurize"
    ),
    "consolidate": Command("capstan.train.consolidate", "join captions to features for training"),
    "train": Command("capstan.train.command", "train a captioner on consolidated shards", "train"),
    "evaluate": Command("capstan.train.evaluate", "score a captioner with BLEU", "train"),
    "predict": Command(
        "capstan.predict.command", "caption pictures with a trained model", "predict"
    ),
    "serve": Command("capstan.predict.server.command", "caption pictures over HTTP", "serve"),
    "plan": Command(
        "capstan.report.plan.command", "how long a job takes and what it needs", "plan"
    ),
    "run": Command("capstan.deploy.local.command", "run all pipelines on this machine", "run"),
    "report": Command("capstan.report.command", "draw a run as one HTML file", "report"),
    "trace": Command(
        "capstan.report.lineage.command", "where a row, a caption or a model came from", "run"
    ),
    "up": Command(
        "capstan.deploy.pachyderm.up", "make or update the pipelines on a Pachyderm", "run"
    ),
    "load": Command(
        "capstan.deploy.pachyderm.load", "put a TSV into a Pachyderm, cut into chunks", "run"
    ),
    "status": Command(
        "capstan.deploy.pachyderm.status", "how far the pipelines on a Pachyderm are", "run"
    ),
    "logs": Command("capstan.deploy.pachyderm.logs", "what a pipeline on a Pachyderm wrote", "run"),
    "caption": Command(
        "capstan.deploy.pachyderm.caption", "caption pictures with a Pachyderm's model", "run"
    ),
    "fetch": Command(
        "capstan.deploy.pachyderm.fetch", "copy a repo, such as model, from a Pachyderm", "run"
    ),
    "down": Command(
        "capstan.deploy.pachyderm.down", "delete the pipelines from a Pachyderm", "run"
    ),
    "launch": Command(
        "capstan.deploy.jobset.command", "train on several nodes of a Kubernetes cluster", "launch"
    ),
    "demo": Command(
        "capstan.demo.command", "the whole road on generated pictures, offline", "demo"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `capstan` command; returns the exit status."""
    name, words = divide(list(sys.argv[1:] if argv is None else argv))
    if name is None:
        _overview().parse_args(words or ["--help"])
        return 2  # not reached: parse_args leaves with --help, --version or an error
    command = COMMANDS[name]
    logging.basicConfig(format="capstan: %(message)s", level=logging.INFO)
    try:
        module = importlib.import_module(command.module)
        parser = argparse.ArgumentParser(
            f"capstan {name}", description=module.__doc__, formatter_class=_HelpFormatter
        )
        module.configure(parser)
        _add_logging_flags(parser)
        arguments = parser.parse_args(words)
        set_up_logging(arguments.log_format, arguments.progress_interval)
        module.run(arguments)
    except CapstanError as error:
        return _fail(str(error), error.exit_status)
    except ModuleNotFoundError as error:
        return _fail(_missing_module(name, command, error), 2)
    except OSError as error:
        if error.errno not in USER_ERRNOS:
            raise
        return _fail(f"{error.filename or 'the system'}: {error.strerror}; mend that, run again", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to go on", 130)
    return 0


def divide(words: list[str]) -> tuple[str | None, list[str]]:
    """The name of a command, which may have two words, and what follows it."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name, words[count:]
    return None, words


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the paragraphs of docstrings and shows defaults."""


def _overview() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "capstan",
        description="From a TSV of (caption, url) to a trained captioner.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n"
        + "\n".join(f"  {name:<12} {command.summary}" for name, command in COMMANDS.items())
        + "\n\n`capstan COMMAND --help` tells more.",
    )
    parser.add_argument("--version", action="version", version=f"capstan {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    return parser


def _add_logging_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--log-format",
        choices=("plain", "json"),
        default=os.environ.get(LOG_FORMAT_VARIABLE, "plain"),
        help=f"how to log on stderr; also {LOG_FORMAT_VARIABLE}",
    )
    group.add_argument(
        "--progress-interval",
        type=float,
        default=float(os.environ.get(INTERVAL_VARIABLE, "10")),
        metavar="SECONDS",
        help=f"time between progress lines off a terminal; also {INTERVAL_VARIABLE}",
    )


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message; numbers of progress; job and shard."""

    is_json = True

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("progress", "event", "job", "shard"):
            if (value := getattr(record, name, None)) is not None:
                entry[name] = value
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(log_format: str, interval: float) -> None:
    """Log to stderr as asked, here and, through the environment, in child processes."""
    os.environ[LOG_FORMAT_VARIABLE] = log_format
    os.environ[INTERVAL_VARIABLE] = str(interval)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's own chatter
    plain = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else plain)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


@cache
def import_tensorflow() -> None:
    """Import TensorFlow and find its devices without what its native code prints meanwhile.

    No setting turns that off: it is printed before its logging is set up.
    """
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
    logger.info("TensorFlow %s on %s", tf.__version__, f"{len(gpus)} GPUs" if gpus else "CPU")


def has_bfloat16() -> bool:
    """Whether the GPUs, or else the processor, calculate in bfloat16; imports TensorFlow."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = (tf.config.experimental.get_device_details(gpu) for gpu in gpus)
        return all(detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details)
    processor = Path("/proc/cpuinfo")
    return processor.is_file() and "avx512_bf16" in processor.read_text()


def _fail(message: str, status: int) -> int:
    logger.error("error: %s", message)
    return status


def _missing_module(name: str, command: Command, error: ModuleNotFoundError) -> str:
    if command.extra is None or error.name is None or error.name == command.module:
        raise error
    return f"capstan {name} needs {error.name}; pip install 'capstan-captions[{command.extra}]'"


if __name__ == "__main__":
    sys.exit(main())
