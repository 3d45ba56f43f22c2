"""The page on the real service, in a real browser: submit a TSV, watch it finish, see why not."""

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.ingestd_service import ServiceProcess
from capstan.testing.web import Web
from tests.chromium import Go
from tests.ingest.service.running import FLAGS, lines, tsv, web

__all__ = ["web"]  # fixtures

expect = pytest.importorskip("playwright.async_api", reason="no `playwright`").expect
TOKEN = "open sesame"


@pytest.fixture
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service that asks for a token."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(f"{TOKEN}\n")
    flags = (*FLAGS, "--token-file", str(folder / "token"))
    with ServiceProcess(folder / "data", flags) as running:
        yield running


async def test_a_tsv_from_the_page_to_its_pictures(
    guarded: ServiceProcess, web: Web, go: Go
) -> None:
    page = await go(f"{guarded.url}/")
    await page.fill("#token", TOKEN)
    await page.keyboard.press("Enter")
    await page.get_by_text("No jobs yet.").wait_for()
    await page.click("#new")
    await page.set_input_files("#file", file("mine.tsv", tsv(lines(web, 40, 300_000))))
    await page.click("#options summary")
    await page.fill("[name=rows_per_chunk]", "10")
    await page.click("#send")
    await page.locator("h1", has_text="mine.tsv").wait_for()
    await page.locator("#job-head .badge[data-state=done]").wait_for()
    assert await page.locator("#job-head .done").text_content() == "40 rows"

    await page.get_by_role("button", name="not found").click()
    await expect(page.locator(".outcomes .caption")).to_have_text(
        [f"picture {number}" for number in range(0, 40, 4)]
    )
    await expect(page.locator("#shards li")).to_have_count(4)
    await expect(page.locator("#pictures li")).to_have_count(24)
    picture = page.locator("#pictures img").first
    await picture.scroll_into_view_if_needed()
    assert await picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 48
    async with page.expect_download() as download:
        await page.locator("#shards a").first.click()
    assert (await (await download.value).path()).stat().st_size > 0
    await page.get_by_role("link", name="All jobs").click()
    await page.locator("#jobs .job", has_text="mine.tsv").wait_for()


def file(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "text/tab-separated-values", "buffer": data}
