"""The documents are true: commands parse and are all shown, links and names lead somewhere."""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from capstan.cli import COMMANDS, divide
from docs.images.make import IMAGES, LARGEST, SPEED, chart
from tests.paths import ROOT

DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
README, WAYS = DOCUMENTS["README.md"], DOCUMENTS["docs/architecture.md"]
ROOMS = (  # but for tests; rglob follows no links
    "capstan", "ingest", "featurize", "train", "predict", "deploy", "report", "demo", "benchmarks",
)  # fmt: skip
LONGEST_README = 130  # lines
FENCE = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
STEP = re.compile(r"`(\w+(?:/\w+)+\.py):([\w.]+)`")  # `file.py:Class.function`


def commands(text: str) -> Iterator[str]:
    """Command lines of a document's indented and fenced blocks, continued lines put together."""
    text = FENCE.sub(lambda block: re.sub("^", "    ", block[1], flags=re.MULTILINE), text)
    joined = text.replace("\\\n", " ")
    for line in re.findall(r"^ {4,}(?:\$ )?(capstan .*)", joined, re.MULTILINE):
        yield shlex.join(shlex.split(line, comments=True))


SHOWN = sorted({line for text in DOCUMENTS.values() for line in commands(text)})


def test_file_map_is_the_tree() -> None:
    file_map = WAYS.split("```")[-2]
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


def test_every_command_is_shown() -> None:
    assert set(COMMANDS) == {divide(shlex.split(line)[1:])[0] for line in SHOWN}


@pytest.mark.parametrize("line", SHOWN)
def test_shown_commands_parse(line: str) -> None:
    name, words = divide(shlex.split(line)[1:])
    assert name
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[name].module).configure(parser)
    parser.parse_args(words)


def test_make_targets_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    shown = {
        word
        for text in (*DOCUMENTS.values(), contributing)
        for words in re.findall(r"(?:^    |`)make ([a-z-]+(?: [a-z-]+)*)", text, re.MULTILINE)
        for word in words.split()
    }
    assert {"demo", "test"} <= shown <= targets


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= LONGEST_README


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    prose = re.sub(r"^    .*|`[^`\n]*`", "", FENCE.sub("", DOCUMENTS[name]), flags=re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" not in target:
            path, _, heading = target.partition("#")
            assert ((ROOT / name).parent / path).exists() and not heading, target


def test_every_document_is_in_the_index() -> None:
    index = DOCUMENTS["docs/README.md"]
    for name in DOCUMENTS:
        assert name in ("README.md", "docs/README.md") or f"]({Path(name).name})" in index, name


def test_images_are_small_and_shown() -> None:
    images = {path for path in IMAGES.iterdir() if path.suffix in (".png", ".svg")}
    assert {ROOT / path for path in re.findall(r"!\[.*?\]\((.*?)\)", README)} == images
    assert max(path.stat().st_size for path in images) < LARGEST


def test_the_chart_is_of_the_results() -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    for bar in SPEED:
        (line,) = re.findall(rf"^\| `{bar.part}`.*", results, re.MULTILINE)
        _, _, ours, peers, ratio, *_ = (cell.strip() for cell in line.split("|"))
        figures = (f"{bar.ours:,}", f"{bar.peers:,}", f"{bar.ratio} x")
        assert (ours.split()[0], peers.split()[0], ratio) == figures
        assert f"{bar.ratio}x" in README
    assert (IMAGES / "speed.svg").read_text() == chart()


@pytest.mark.parametrize("place", sorted(set(STEP.findall(WAYS))))
def test_steps_are_in_the_code(place: tuple[str, str]) -> None:
    path, names = place
    code = Path(ROOT, path).read_text()
    for name in names.split("."):
        assert re.search(rf"^ *(?:(?:async )?def|class) {name}\b|^{name} = ", code, re.MULTILINE)


def test_ways_count_their_files() -> None:
    ways = [part for part in WAYS.split("\n## ") if part.startswith("The way of ")]
    assert len(ways) == 3
    for way in ways:
        files = {path for path, _ in STEP.findall(way)}
        assert f"It crosses {len(files)} files" in way, (way.splitlines()[0], len(files))
