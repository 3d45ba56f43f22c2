"""The README is true: its commands parse, its file map is the tree, every subcommand is named."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from pipeline.cli import COMMANDS, divide

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PACKAGES = re.findall(r"^    ([a-z]+)\*$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
SHOWN = re.findall(r"^    (capstan [^#\n]*)", README, re.MULTILINE)


def test_file_map_is_the_tree() -> None:
    file_map = README.split("```")[1]
    folder, mapped = "", set()
    for line in file_map.strip().splitlines():
        if line.startswith("  "):
            mapped.add(folder + line.split()[0])
        else:
            folder = line.split()[0]
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).glob("*.py")
        if path.name != "__init__.py"
    }
    assert mapped == modules


def command_of(line: str) -> str | None:
    return divide(line.split()[1:])[0]


def test_every_command_is_shown() -> None:
    for name in COMMANDS:
        assert f"`capstan {name}" in README or name in map(command_of, SHOWN), name


@pytest.mark.parametrize("line", SHOWN)
def test_shown_commands_parse(line: str) -> None:
    name, words = divide(shlex.split(line)[1:])
    assert name
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[name].module).configure(parser)
    parser.parse_args(words)


def test_make_targets_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    shown = {
        word
        for words in re.findall(r"^    make ([a-z ]+)", README, re.MULTILINE)
        for word in words.split()
    }
    assert shown
    assert shown <= targets
