"""The browser of tests that look at a page: Debian's, where it is, and asking nobody anything."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
Page = Any  # playwright's
Go = Callable[..., Awaitable[Page]]  # to an address; more is for the browser's context


@asynccontextmanager
async def browsing() -> AsyncIterator[Go]:
    """Open pages; at the end nobody but this machine was asked and the consoles are empty."""
    from playwright.async_api import async_playwright

    seen: list[str] = []
    said: list[str] = []

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        async def go(url: object, **more: Any) -> Page:
            page = await (await browser.new_context(**more)).new_page()
            page.set_default_timeout(20_000)
            page.on("request", lambda request: seen.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            await page.goto(str(url))
            return page

        yield go
        await browser.close()
    hosts = {
        url.split("/")[2].split(":")[0] for url in seen if not url.startswith(("blob:", "data:"))
    }
    assert hosts == {"127.0.0.1"}
    assert [text for text in said if "Failed to load resource" not in text] == []
