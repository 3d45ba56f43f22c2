"""The page in a real browser, from the first picture to a cleared history; it asks nobody else."""

import asyncio
import base64
import io
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from capstan.predict.captions import Captions, Predictor
from capstan.predict.server.config import ServerLimits
from capstan.predict.server.explain import GRID
from capstan.records import Failure
from tests.chromium import Go, Page, stop_clock
from tests.predict.conftest import png
from tests.predict.server.conftest import (
    SAID,
    Client,
    Held,
    Start,
    begun,
    metric,
    starting,
)

expect = pytest.importorskip("playwright.async_api", reason="no `playwright`").expect
Visit = Callable[..., Awaitable[Page]]  # of a client's server; more is for the browser's context
PAINTED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
ADD = """([kind, name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const event = kind === "drop"
    ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
  document.body.dispatchEvent(event);
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def start() -> AsyncIterator[Start]:
    """Start a server in the event loop of the browser; it ends with the test."""
    async with starting() as begin:
        yield begin


@pytest_asyncio.fixture(loop_scope="session")
async def client(start: Start, predictor: Predictor) -> Client:
    """A client of a server with the real model."""
    client, _ = await start(predictor, ServerLimits())
    return client


@pytest.fixture
def visit(go: Go) -> Visit:
    """Open the page of a server; at the end nobody else was asked and the console is empty."""

    async def visit_server(client: Client, **more: Any) -> Page:
        return await go(client.make_url("/"), **more)

    return visit_server


def best(predictor: Predictor, picture: bytes) -> Captions:
    pixels = predictor.pixels(picture)
    assert not isinstance(pixels, Failure)
    return predictor.captions([pixels])[0]


def file(data: bytes, name: str = "a.png", kind: str = "image/png") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": data}


async def pick(page: Page, *files: dict[str, Any]) -> None:
    await page.set_input_files("#files", list(files))


async def shown(page: Page, entries: int = 1) -> str:
    """The caption shown, once there are so many entries."""
    await expect(page.locator("#history li")).to_have_count(entries)
    return " ".join(await page.locator("#caption .word").all_text_contents())


async def heat(page: Page) -> np.ndarray:
    """The overlay's strength, (GRID, GRID)."""
    await page.locator("#heat").wait_for()
    data = str(await page.locator("#heat").evaluate("canvas => canvas.toDataURL()"))
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as image:
        assert image.size == (GRID, GRID)
        return np.asarray(image.getchannel("A"), np.int32)


async def test_a_picture_from_caption_to_overlay(
    client: Client, visit: Visit, predictor: Predictor
) -> None:
    picture = png(1)
    first, second = best(predictor, picture)
    page = await visit(client)
    await pick(page, file(picture))
    assert await shown(page) == first.text
    words = page.locator("#caption .word")
    for place, sure in enumerate(first.word_log_probabilities[:-1]):
        label = str(await words.nth(place).get_attribute("aria-label"))
        percent = float(label.rpartition(", ")[2].removesuffix(" % sure"))
        assert percent == pytest.approx(100 * math.exp(sure), rel=0.01)
    assert second.text in str(await page.text_content("#others"))

    await words.nth(0).hover()
    assert f"“{first.text.split()[0]}”" in str(await page.text_content("#detail"))
    assert await page.locator("#heat").is_hidden()
    async with client.post("/explain", data=picture) as response:
        answer = await response.json()
    await words.nth(1).click()
    leaning = np.array(answer["words"][1]["leaning"])
    scale = max(0.25, abs(leaning).max())
    np.testing.assert_allclose(await heat(page), 200 * abs(leaning) / scale, atol=1)
    place = await page.locator("#heat").bounding_box()
    frame = await page.locator("#picture").bounding_box()
    for side in ("width", "height"):
        assert place[side] / frame[side] == pytest.approx(answer["window"][side], abs=0.01)
    assert "inside the dashed line" in str(await page.text_content("#seen"))
    await words.nth(1).click()  # again: no word is chosen
    assert await page.locator("#heat").is_hidden()


async def test_with_the_keyboard_alone(client: Client, visit: Visit) -> None:
    page = await visit(client)
    page.on("filechooser", lambda _: None)  # from now on none opens a window
    await page.evaluate(PAINTED)  # before that a browser takes no keys
    await page.keyboard.press("Tab")
    async with page.expect_file_chooser() as chooser:
        await page.keyboard.press("Enter")
    await (await chooser.value).set_files([file(png(1)), file(png(2), "b.png")])
    caption = (await shown(page, 2)).split()

    async def focused() -> str:
        return str(await page.evaluate("document.activeElement.textContent"))

    await page.keyboard.press("Tab")
    assert await focused() == caption[0]
    await page.keyboard.press("ArrowRight")
    assert await focused() == caption[1]
    one = await heat(page)
    detail = str(await page.text_content("#detail"))
    assert f"“{caption[1]}”" in detail
    assert "part of the picture" in detail or "It leaned most on" in detail
    await page.keyboard.press("End")
    assert await focused() == caption[-1]
    assert (await heat(page) != one).any()
    await page.keyboard.press("Escape")
    assert await page.locator("#heat").is_hidden()
    await page.keyboard.press("Tab")
    assert await focused() == "Clear all"
    for _ in range(2):
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    assert await page.locator(".card").nth(1).get_attribute("aria-current") == "true"


@pytest.mark.parametrize("kind", ["drop", "paste"])
async def test_dropped_and_pasted(
    client: Client, visit: Visit, predictor: Predictor, kind: str
) -> None:
    page = await visit(client)
    picture = png(3)
    data = base64.b64encode(picture).decode()
    await page.evaluate(ADD, [kind, "a.png", "image/png", data])
    assert await shown(page) == best(predictor, picture)[0].text


async def test_history_outlives_the_page_until_it_is_cleared(client: Client, visit: Visit) -> None:
    page = await visit(client)
    await pick(page, file(png(1)), file(png(2)))
    caption = await shown(page, 2)
    await page.locator("#caption .word").first.click()
    before = await heat(page)
    await page.reload()
    assert await shown(page, 2) == caption
    assert await metric(client, 'capstan_requests_total{endpoint="/explain",status="2xx"}') == 1
    await page.locator("#caption .word").first.click()
    assert (await heat(page) == before).all()  # kept, too
    await page.click("#clear")
    assert await page.locator("#view").is_hidden()
    await page.reload()
    assert await page.locator("#history li").count() == 0
    assert await page.evaluate("localStorage.getItem('capstan.history.1')") == "[]"


async def test_a_picture_over_the_limit_is_made_smaller(start: Start, visit: Visit) -> None:
    held = Held()
    held.go.set()
    client, _ = await start(held, ServerLimits(max_bytes=40_000))
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (600, 900, 3)).astype(np.uint8)
    Image.fromarray(noise).save(data, "PNG")
    page = await visit(client)
    async with client.post("/caption", data=io.BytesIO(data.getvalue())) as response:
        assert response.status == 413
    await pick(page, file(data.getvalue()))
    assert await shown(page) == SAID[0].text


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"<html>", "image/png", "send JPEG, PNG, WebP, GIF or BMP"),
        (b"", "image/png", "the file is empty"),
        (png(0)[:300], "image/png", "damaged or cut short"),
        (b"a letter", "text/plain", "send JPEG, PNG, WebP, GIF or BMP"),
    ],
)
async def test_what_is_no_picture(
    client: Client, visit: Visit, data: bytes, kind: str, message: str
) -> None:
    page = await visit(client)
    await pick(page, file(data, "broken", kind), file(png(1), "whole"))
    await shown(page)
    (told,) = await page.locator("#messages li").all_text_contents()
    assert told.startswith("broken: ")
    assert message in told
    await page.get_by_role("button", name="Dismiss").click()
    assert await page.locator("#messages li").count() == 0


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "the server refused it: why"),
        (408, "took too long to arrive"),
        (413, "larger than the server takes (17 MB)"),
        (415, "does not read pictures of this kind"),
        (500, "its log tells why"),
    ],
)
async def test_refusals(client: Client, visit: Visit, status: int, message: str) -> None:
    page = await visit(client)

    async def refuse(route: Any) -> None:
        await route.fulfill(status=status, json={"error": "why"})

    await page.route("**/caption", refuse)
    await pick(page, file(png(1)))
    await page.locator("#messages li").wait_for()
    assert message in str(await page.text_content("#messages"))
    await page.unroute("**/caption")
    await page.get_by_role("button", name="Try again").click()
    assert await shown(page)
    assert await page.locator("#messages li").count() == 0


async def test_a_busy_server_is_asked_again(start: Start, visit: Visit) -> None:
    held = Held()
    client, service = await start(held, ServerLimits(queue=1, max_pictures=1))
    page = await visit(client)
    await stop_clock(page)
    other = asyncio.create_task(client.post("/caption", data=b"a picture"))
    await begun(held)
    await pick(page, file(png(1)))
    for attempt in range(4):
        async with page.expect_response("**/caption") as answer:
            if attempt:
                await page.get_by_text("asking again in 1 s").wait_for()
                await page.evaluate("document.querySelector('#status').textContent = ''")
                await page.clock.run_for(1_000)  # and then it says so again
        assert (await answer.value).status == 429
    await page.locator("#messages li").wait_for()
    assert "all the pictures that it can take" in str(await page.text_content("#messages"))
    held.go.set()
    assert (await other).status == 200
    assert service.gate.held == 0
    await page.get_by_role("button", name="Try again").click()
    assert await shown(page) == SAID[0].text


async def test_a_server_that_is_gone(client: Client, visit: Visit) -> None:
    page = await visit(client)
    await client.server.close()
    await pick(page, file(png(1)))
    await page.locator("#messages li").wait_for()
    assert "the server does not answer" in str(await page.text_content("#messages"))


async def test_explanations_that_are_refused(start: Start, visit: Visit) -> None:
    held = Held()
    held.go.set()
    client, _ = await start(held, ServerLimits(timeout=5))
    page = await visit(client)
    await pick(page, file(png(1)))
    await shown(page)

    async def refuse(route: Any) -> None:
        await route.fulfill(status=500, json={"error": "why"})

    await page.route("**/explain", refuse)
    await page.locator("#caption .word").first.click()
    await page.locator("#messages li").wait_for()
    assert "What its words leaned on: the server failed" in str(
        await page.text_content("#messages")
    )
    assert await page.locator(".word[aria-pressed=true]").count() == 0


async def test_without_explanations(start: Start, visit: Visit) -> None:
    held = Held()
    held.go.set()
    client, _ = await start(held, ServerLimits(explanations=0))
    page = await visit(client)
    await pick(page, file(png(1)))
    await shown(page)
    await page.locator("#caption .word").first.click()
    assert await page.text_content("#detail") == "“a”, 60.7 % sure. "
    assert "leaned" not in str(await page.text_content("#how"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone_by_day_and_by_night(client: Client, visit: Visit, scheme: str) -> None:
    page = await visit(
        client,
        viewport={"width": 360, "height": 700},
        has_touch=True,
        is_mobile=True,
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    camera = page.locator("#camera")
    assert await camera.get_attribute("capture") == "environment"
    assert await page.get_by_text("Take a photo").is_visible()
    await camera.set_input_files([file(png(1))])
    await shown(page)
    await page.locator("#caption .word").first.tap()
    await heat(page)
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    image = Image.open(io.BytesIO(await page.screenshot(full_page=True))).convert("L")
    assert (np.asarray(image)[2, 2] < 60) == (scheme == "dark")
    assert (
        await page.locator("#picture").evaluate("e => getComputedStyle(e).transitionDuration")
        == "0s"
    )


@pytest.mark.asyncio(loop_scope="session")
async def test_only_this_script_runs(client: Client) -> None:
    async with client.get("/") as response:
        policy = response.headers["Content-Security-Policy"]
        text = await response.text()
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "://" not in text.replace("http://www.w3.org/", "")


async def test_names_of_files_are_text(client: Client, visit: Visit, tmp_path: Path) -> None:
    page = await visit(client)
    await pick(page, file(b"none", "<img src=x onerror=alert(1)>"))
    await page.locator("#messages li").wait_for()
    assert "<img src=x" in str(await page.text_content("#messages"))
