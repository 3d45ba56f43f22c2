"""The documents are true: commands parse and are all shown, the file map is the tree."""

import argparse
import importlib
import re
import shlex

import pytest

from capstan.cli import COMMANDS, divide
from tests.paths import ROOT

README = (ROOT / "README.md").read_text()
ROOMS = (  # but for tests; rglob follows no links
    "capstan", "ingest", "featurize", "train", "predict", "deploy", "report", "demo", "benchmarks",
)  # fmt: skip
SHOWN = re.findall(r"^    (capstan [^#\n]*)", README, re.MULTILINE)


def test_file_map_is_the_tree() -> None:
    file_map = (ROOT / "docs" / "architecture.md").read_text().split("```")[-2]
    folder, mapped = "", set()
    for line in file_map.strip().splitlines():
        if line.startswith("  "):
            mapped.add(folder + line.split()[0])
        else:
            folder = line.split()[0]
    modules = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
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
