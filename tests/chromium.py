"""The browser of tests that look at a page: Debian's, where it is, and asking nobody anything.

One for all tests of a process; each test has contexts of its own, which know nothing of others'.
"""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A page for its address bar, which nobody sees, costs more than the page that is looked at.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup",
]
PATIENCE = 20_000  # milliseconds
Page = Any  # playwright's
Go = Callable[..., Awaitable[Page]]  # to an address; more is for the browser's context


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Any]:
    """The browser; tests with it share an event loop and a process (`tests/conftest.py`)."""
    playwright = pytest.importorskip(
        "playwright.async_api", reason="no `playwright`: pip install it"
    )
    if CHROMIUM is None:
        pytest.skip("no `chromium` on this machine")
    playwright.expect.set_options(timeout=PATIENCE)
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def go(browser: Any) -> AsyncIterator[Go]:
    """Open pages; at the end nobody but their servers was asked and the consoles are empty."""
    contexts: list[Any] = []
    seen: list[str] = []
    said: list[str] = []

    def hear(message: Any) -> None:
        refused = "Failed to load resource" in message.text  # by the page's server
        if not (refused and message.location["url"].startswith("http:")):
            said.append(message.text)

    async def visit(url: object, **more: Any) -> Page:
        contexts.append(context := await browser.new_context(**more))
        page = await context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: seen.append(request.url))
        page.on("console", hear)
        page.on("pageerror", lambda error: said.append(str(error)))
        await page.goto(str(url))
        return page

    yield visit
    for context in contexts:
        await context.close()
    hosts = {
        url.split("/")[2].split(":")[0] for url in seen if not url.startswith(("blob:", "data:"))
    }
    assert hosts in ({"127.0.0.1"}, {""}), hosts  # of a file it is none
    assert said == [], said


async def stop_clock(page: Page) -> None:
    """From now on the time of a page, frames too, passes by `page.clock.run_for` alone."""
    await page.clock.install(time=0)
    await page.clock.pause_at(3600)
