"""The shell of all pages: it stands in one place, and a page is put into it as it is."""

import re
from collections import defaultdict
from pathlib import Path

from aiohttp.test_utils import make_mocked_request

from capstan.http import page
from tests.paths import ROOT

ROOMS = ("capstan", "ingest", "predict", "report")  # that have pages; rglob follows no links
SHELL = "capstan/http/shell.css"


def test_tokens_stand_in_one_file() -> None:
    places = defaultdict(set)
    for sheet in (path for room in ROOMS for path in (ROOT / room).rglob("*.css")):
        for token in re.findall(r"(--[\w-]+):", sheet.read_text()):
            places[token].add(sheet.relative_to(ROOT).as_posix())
    assert places.pop("--fill") == {SHELL, "report/style.css"}  # one of its own by night
    assert {token for token, files in places.items() if len(files) > 1} == set()
    assert places["--paper"] == {SHELL}


async def test_a_page_in_the_shell(tmp_path: Path) -> None:
    for name, text in {"html": "<p>$title</p>", "css": "p { }", "js": 'say("$5");'}.items():
        (tmp_path / f"page.{name}").write_text(text)
    answer = page.handler(tmp_path, "Sails & ropes", data={"knot": '"bowline"'})
    response = await answer(make_mocked_request("GET", "/"))
    text = str(response.text)
    assert re.findall(r"\$\w+", (page.HERE / "shell.html").read_text()) == [
        "$title", "$style", "$data", "$body", "$script",
    ]  # fmt: skip
    assert "<title>Sails &amp; ropes</title>" in text
    assert '<body data-knot="&quot;bowline&quot;">\n\n<p>$title</p>\n' in text
    assert text.index("--paper") < text.index("p { }")
    assert text.index("const element") < text.index('say("$5");')
    style, script = (
        re.findall(f"<{tag}>(.*?)</{tag.split()[0]}>", text, re.DOTALL)[0]
        for tag in ("style", 'script type="module"')
    )
    assert response.headers["Content-Security-Policy"] == page.policy(style, script)
