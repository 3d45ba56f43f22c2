"""Run `capstan` commands: in this process, where libraries are loaded, or in one of its own."""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from capstan.cli import main

Completed = subprocess.CompletedProcess[str]


def command_line(*words: object) -> list[str]:
    """Return the command line of `capstan`, as this environment runs it."""
    return [sys.executable, "-m", "capstan.cli", *map(str, words)]


def run_process(*words: object) -> Completed:
    """Run a command in a process of its own: for what only a process can show."""
    return subprocess.run(
        command_line(*words), capture_output=True, text=True, timeout=300, check=False
    )


def run_here(*words: object) -> Completed:
    """Run a command in this process. What it would end with a traceback is raised."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with process_restored(), redirect_stdout(out), redirect_stderr(err):
        try:
            status = main([str(word) for word in words])
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else 1
    texts = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(list(map(str, words)), status, *texts)


@contextmanager
def process_restored() -> Iterator[None]:
    """Put back what a command changes of its process: log handlers and the environment."""
    root, environment = logging.getLogger(), dict(os.environ)
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level
        os.environ.clear()
        os.environ.update(environment)
