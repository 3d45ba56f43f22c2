"""What docs/ingest.md says of img2dataset's mistakes: each has a test that it is not made here."""

import re
from pathlib import Path

import aiohttp.test_utils
import aiohttp.web
import pytest

from capstan.chunks import find_chunks
from capstan.ingest.config import IngestSettings
from capstan.ingest.resources import PoolInfo
from capstan.ingest.work import work
from capstan.shards import read_outcomes
from tests.ingest.conftest import write_chunk
from tests.paths import ROOT

TESTS = Path(__file__).parent
PAGE = (ROOT / "docs" / "ingest.md").read_text()
NAMED = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)


def test_mistakes_are_listed() -> None:
    assert len(NAMED) > 15


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_is_there(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_each_kind_of_redirect_is_followed(
    settings: IngestSettings, pictures: dict[str, bytes], status: int
) -> None:
    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        if request.path == "/old":
            return aiohttp.web.Response(status=status, headers={"Location": "/new"})
        return aiohttp.web.Response(body=pictures["wide.jpg"])

    app = aiohttp.web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with aiohttp.test_utils.TestServer(app) as server:
        write_chunk(settings, "0", [("a", str(server.make_url("/old")))])
        await work(find_chunks(settings.input), settings, PoolInfo(), lambda _: None)
        (row,) = read_outcomes(settings.output / "0.parquet").to_pylist()
        assert (row["reason"], row["final_url"]) == (None, str(server.make_url("/new")))
