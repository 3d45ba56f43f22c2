"""The command: help, exit statuses, lazy imports, log formats."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from capstan.cli import COMMANDS, main
from tests.paths import ROOT

HEAVY = ("tensorflow", "keras", "aiohttp", "PIL", "matplotlib", "nltk", "pachyderm_sdk")


def capstan(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "capstan.cli", *words], capture_output=True, text=True, check=False
    )


def test_help_names_every_command() -> None:
    done = capstan("--help")
    assert done.returncode == 0
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", done.stdout, re.MULTILINE)


def test_no_command_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 0
    assert "commands:" in capsys.readouterr().out


def test_unknown_command_and_flag_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["fly"], ["split", "--fly"], ["split"]):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 2
    assert "invalid choice: 'fly'" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_cheap_and_whole(name: str) -> None:
    code = (
        "import sys; from capstan.cli import main\n"
        "try: main([sys.argv[1], '--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, check=True
    )
    *help_lines, heavy = done.stdout.strip().splitlines()
    assert heavy == "[]"
    flags = [line for line in help_lines if line.startswith("  -")]
    assert any("--log-format" in line for line in flags)
    for flag in flags:  # a flag alone on its line has its help on the next
        index = help_lines.index(flag)
        text = flag + (help_lines[index + 1] if index + 1 < len(help_lines) else "")
        assert re.search(r"\S {2,}\S", text.strip()), f"{flag.strip()} has no help"


def test_setting_error_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = capstan("featurize", "--input", str(tmp_path / "absent"), "--output", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "absent: no such directory; give an existing one with --input" in done.stderr


def test_json_log_lines_are_json(tmp_path: Path) -> None:
    done = capstan(
        "featurize", "--input", str(tmp_path), "--output", str(tmp_path), "--log-format", "json"
    )
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert entry["level"] == "error"
    assert "holds no image shards" in entry["message"]


def test_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "chunk").write_text("a dog\thttp://127.0.0.1:9/dog.jpg\n")
    code = (
        "import sys; sys.modules['yarl'] = None\n"
        "from capstan.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["ingest", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.endswith(
        "capstan ingest needs yarl; pip install 'capstan-captions[ingest]'\n"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("-m", "capstan", "--help"), ("-c", "import capstan.ingest")])
def test_a_checkout_without_its_links_says_so(tmp_path: Path, words: tuple[str, ...]) -> None:
    """As git leaves it where it may not make symbolic links."""
    package = tmp_path / "capstan"
    package.mkdir()
    for path in (ROOT / "capstan").iterdir():
        if path.is_symlink():
            (package / path.name).write_text(str(path.readlink()))
        elif path.is_file():
            shutil.copy(path, package)
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "git config core.symlinks true" in done.stderr


def test_rooms_have_one_name() -> None:
    """A room outside capstan/ without its link there would import as a second copy."""
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"capstan", "benchmarks"}
    links = {path.name: path for path in (ROOT / "capstan").iterdir() if path.is_symlink()}
    assert set(links) == rooms
    assert all(path.resolve() == ROOT / name for name, path in links.items())
    banned = tomllib.loads((ROOT / "ruff.toml").read_text())["lint"]["flake8-tidy-imports"]
    assert set(banned["banned-api"]) == rooms
