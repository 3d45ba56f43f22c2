"""The page in a real browser, from the first TSV to its failures; the service is a stand-in."""

import base64
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image

from capstan.http.page import HERE as SHELL
from capstan.ingest.service.app import PAGE, SCRIPTS
from capstan.ingest.service.validation import DOCUMENT
from tests.chromium import Go, Page, stop_clock
from tests.ingest.service.stand_in import Service, jpeg

expect = pytest.importorskip("playwright.async_api", reason="no `playwright`").expect
Visit = Callable[..., Awaitable[Page]]  # of a fragment; more is for the browser's context
TSV = b"a dog\thttp://a.test/0.jpg\na cat\thttp://a.test/1.jpg\n"
PAINTED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
DROP = """([name, data]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([atob(data)], name, { type: "text/plain" }));
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
  document.body.dispatchEvent(new DragEvent("drop", options));
}"""


@pytest.fixture
def service() -> Service:
    """The stand-in that the page talks to."""
    return Service()


@pytest_asyncio.fixture(loop_scope="session")
async def server(service: Service) -> AsyncIterator[TestServer]:
    """Where it listens."""
    listening = TestServer(service.app())
    async with listening:
        yield listening


@pytest.fixture
def visit(server: TestServer, service: Service, go: Go) -> Visit:
    """Open the page; at the end nobody else was asked and the console is empty."""

    async def visit_service(fragment: str = "", **more: Any) -> Page:
        page = await go(f"{server.make_url('/')}{fragment}", **more)
        if not service.token:
            await live(page)
        return page

    return visit_service


async def live(page: Page) -> None:
    """Return when the page follows the service."""
    await page.locator("#link[data-live=yes]").wait_for()


async def says(page: Page, selector: str, text: str) -> None:
    """Return when an element's text has this in it."""
    await page.locator(selector).filter(has_text=text).first.wait_for(state="attached")


def tsv(data: bytes = TSV, name: str = "cc.tsv") -> dict[str, Any]:
    return {"name": name, "mimeType": "text/tab-separated-values", "buffer": data}


def row(page: Page, name: str) -> Any:
    return page.locator("#jobs .job").filter(has_text=name)


async def press(page: Page, job: str, name: str) -> None:
    """Press a button of a job, once the page takes it: what it did before is answered."""
    button = row(page, job).get_by_role("button", name=name)
    await button.and_(page.locator(":not([aria-busy=true])")).click()


async def test_a_job_from_its_tsv_to_its_failures(service: Service, visit: Visit) -> None:
    page = await visit()
    await page.get_by_text("No jobs yet.").wait_for()
    await page.click("#new")
    await page.set_input_files("#file", tsv(b"".join(b"c\thttp://a/%d\n" % n for n in range(100))))
    await says(page, "#chosen", "cc.tsv, 1.4 kB")
    await page.click("#send")
    await page.locator("h1", has_text="cc.tsv").wait_for()
    (job,) = service.jobs.values()
    assert service.bodies[job["id"]].count(b"\n") == 100
    assert service.queries[job["id"]] == {"name": "cc.tsv"}
    await says(page, "#job-head", "queued")

    service.tell(job, state="running", started=job["created"], rate=12.0, eta=5.0, done=20)
    await says(page, "#job-head", "20 % of 100 rows")
    await says(page, "#job-head", "12/s, 5 s left")
    service.fail(job, "not_found", 17)
    service.fail(job, "timeout", 3, http_status=None, attempts=3)
    service.finish(job, {"cc-0": ("a red picture", jpeg("red"))})
    await says(page, "#news", "cc.tsv: done, 80 pictures, 20 failures")
    await says(page, "#facts", "10 of 10")
    assert await page.locator("#job-head .bar").get_attribute("aria-valuenow") == "100"

    await page.locator("#pictures img").wait_for()
    assert await page.text_content("#pictures .caption") == "a red picture"
    assert await page.locator("#pictures img").evaluate("image => image.decode()") is None
    await expect(page.locator("#shards a")).to_have_text(
        ["tar 12.3 kB", "parquet 12.3 kB", "stats.json 12.3 kB"]
    )
    assert await page.get_attribute("#outcomes", "href") == f"api/jobs/{job['id']}/outcomes.parquet"

    captions = page.locator(".outcomes .caption")
    await expect(captions).to_have_count(15)
    await page.locator("#failures").get_by_role("button", name="Next").click()
    await expect(captions).to_have_text([f"caption {number}" for number in range(15, 20)])
    await says(page, "#failures", "Page 2")
    await page.get_by_role("button", name="timeout").click()
    await expect(captions).to_have_text([f"caption {number}" for number in range(17, 20)])
    await expect(page.locator(".outcomes li")).to_contain_text(["3 attempts"] * 3)
    assert "HTTP" not in str(await page.text_content(".outcomes"))
    await page.get_by_role("button", name="Retry timeout").click()
    await says(page, "#job-head", "queued")
    assert service.retries == [{"reasons": ["timeout"]}]


async def test_rows_are_pasted_and_options_chosen(service: Service, visit: Visit) -> None:
    page = await visit()
    await page.click("#new")
    await page.click("#send")
    await says(page, "#submit-error", "paste at least one row")
    await page.fill("#rows", "a dog\thttp://a.test/0.jpg\na cat")
    await says(page, "#counted", "2 rows. Line 2 has no tab between caption and address.")
    await page.fill("#rows", TSV.decode())
    assert await page.text_content("#counted") == "2 rows."
    await page.click("#options summary")
    await page.fill("[name=image_size]", "0")
    await page.click("#options summary")
    await page.click("#send")  # the browser says what is wrong with it, and shows it
    assert await page.locator("[name=image_size]").is_visible()
    await page.fill("[name=image_size]", "64")
    await page.select_option("[name=resize_mode]", "border")
    await page.fill("#name", "mine")
    await page.click("#send")
    await page.locator("h1", has_text="mine").wait_for()
    (job,) = service.jobs.values()
    assert service.bodies[job["id"]] == TSV
    assert service.queries[job["id"]] == {
        "name": "mine",
        "image_size": "64",
        "resize_mode": "border",
    }
    await page.click("#new")  # all is forgotten
    assert await page.input_value("#rows") == await page.input_value("[name=image_size]") == ""


async def test_trouble_does_not_make_two_jobs(service: Service, visit: Visit) -> None:
    page = await visit()
    sent: list[str] = []

    async def cut(route: Any) -> None:  # the service takes it, its answer is lost
        sent.append(route.request.headers["idempotency-key"])
        await route.fetch()
        await route.abort()

    await page.route("**/api/jobs?name=*", cut)
    await page.click("#new")
    await page.fill("#rows", TSV.decode())
    await page.click("#send")
    await says(page, "#submit-error", "Not submitted: the service does not answer")
    await page.unroute("**/api/jobs?name=*")
    await page.click("#send")
    await page.locator("h1", has_text="pasted.tsv").wait_for()
    assert len(sent) == len(service.jobs) == 1
    await page.click("#new")
    await page.fill("#rows", TSV.decode())
    await page.click("#send")
    await page.wait_for_url("**/#/jobs/j00002")  # another time it is another job
    assert len(set(service.keys)) == 2


async def test_a_service_that_takes_no_more(service: Service, visit: Visit) -> None:
    page = await visit()
    busy = {"error": "1,000 jobs are unfinished, no more are taken."}
    service.refusals["/api/jobs"] = web.json_response(
        busy, status=429, headers={"Retry-After": "30"}
    )
    await page.click("#new")
    await page.fill("#rows", TSV.decode())
    await page.click("#send")
    await says(page, "#submit-error", "Not submitted: 1,000 jobs are unfinished")
    await says(page, "#submit-error", "Try again in 30 s.")
    await page.click("#send")
    await page.locator("h1", has_text="pasted.tsv").wait_for()


async def test_sending_is_stopped(service: Service, visit: Visit) -> None:
    page = await visit()
    await page.route("**/api/jobs?name=*", lambda route: None)  # it never arrives
    await page.click("#new")
    await page.set_input_files("#file", tsv())
    await page.click("#send")
    await page.get_by_role("button", name="Stop sending").click()
    await page.locator("#send").wait_for()
    assert await page.text_content("#submit-error") == ""
    assert await page.text_content("#chosen") == "cc.tsv, 52 B"  # it may be sent again
    assert not service.jobs


async def test_a_file_is_dropped(service: Service, visit: Visit) -> None:
    page = await visit()
    await page.evaluate(DROP, ["dropped.tsv", base64.b64encode(TSV).decode()])
    await says(page, "#chosen", "dropped.tsv, 52 B")
    assert await page.locator("#rows").is_hidden()
    await page.get_by_role("button", name="Remove").click()
    assert await page.locator("#rows").is_visible()
    await page.evaluate(DROP, ["empty.tsv", ""])
    await page.click("#send")
    await says(page, "#submit-error", "This file is empty.")


async def test_pause_resume_cancel_and_delete(service: Service, visit: Visit) -> None:
    job = service.add("big.tsv", state="running")
    other = service.add("other.tsv", state="running")
    page = await visit()

    for name, shows in (("Pause", "paused"), ("Resume", "running")):
        await press(page, "big.tsv", name)
        await row(page, "big.tsv").get_by_text(shows, exact=True).wait_for()
    await press(page, "big.tsv", "Cancel")
    await page.get_by_role("button", name="Keep it").click()
    assert job["state"] == "running"
    await press(page, "big.tsv", "Cancel")
    await says(page, "#question", "Cancel “big.tsv”?")
    await page.get_by_role("button", name="Cancel the job").click()
    await row(page, "big.tsv").get_by_text("cancelled", exact=True).wait_for()
    await press(page, "big.tsv", "Delete")
    await says(page, "#question", "There is no way back.")
    await page.get_by_role("button", name="Delete the job").click()
    await row(page, "big.tsv").wait_for(state="detached")
    assert list(service.jobs.values()) == [other]


async def test_what_is_refused_is_said(service: Service, visit: Visit) -> None:
    job = service.add("big.tsv", state="running")
    page = await visit()
    service.jobs[job["id"]] = job | {"state": "done"}  # it has ended, unheard
    await row(page, "big.tsv").get_by_role("button", name="Pause").click()
    await says(page, "#messages", "big.tsv: cannot pause a job that is done")
    await page.get_by_role("button", name="Dismiss").click()
    assert await page.locator("#messages li").count() == 0


async def test_the_focus_stays_while_all_moves(service: Service, visit: Visit) -> None:
    old, new = (service.add(name, state="running") for name in ("old.tsv", "new.tsv"))
    page = await visit()
    button = row(page, "old.tsv").get_by_role("button", name="Pause")
    await button.focus()
    service.tell(new, state="done")  # it moves below the other
    await page.locator("#jobs .job:last-child", has_text="new.tsv").wait_for()
    service.tell(old, done=50)
    await says(page, "#jobs", "50 % of 100 rows")
    await page.keyboard.press("Enter")
    await says(page, "#jobs", "paused")
    assert await page.evaluate("document.activeElement.textContent") == "Resume"


async def test_the_order_of_jobs_and_those_further_down(service: Service, visit: Visit) -> None:
    service.add("first.tsv", state="running")
    for number in range(120):
        service.add(f"queued-{number}.tsv")
    service.add("last.tsv", state="done")
    page = await visit()
    names = page.locator("#jobs h3")
    await expect(names).to_have_count(50)
    assert await names.nth(0).text_content() == "first.tsv"  # at work, however old
    assert await names.nth(1).text_content() == "queued-119.tsv"
    for count in (100, 122):
        await page.click("#older")
        await expect(names).to_have_count(count)
    assert await names.last.text_content() == "last.tsv"
    assert await page.locator("#older").is_hidden()
    await page.select_option("#state", "done")
    await expect(names).to_have_text(["last.tsv"])
    await page.select_option("#state", "failed")
    await page.get_by_text("No job is in this state.").wait_for()


async def test_signing_in_and_out(service: Service, visit: Visit) -> None:
    service.token = "open sesame"
    service.add("secret.tsv")
    page = await visit()
    await page.fill("#token", "a guess")
    await page.keyboard.press("Enter")
    await says(page, "#login-error", "This is not its token.")
    assert "secret.tsv" not in await page.content()
    await page.fill("#token", "open sesame")
    await page.keyboard.press("Enter")
    await row(page, "secret.tsv").wait_for()
    assert await page.evaluate("document.cookie") == ""  # no script may read it
    await page.reload()
    await row(page, "secret.tsv").wait_for()
    await page.get_by_role("button", name="Sign out").click()
    await page.locator("#login").wait_for()
    assert await row(page, "secret.tsv").is_hidden()


async def test_a_session_that_ends_meanwhile(service: Service, visit: Visit) -> None:
    job = service.add("big.tsv", state="running")
    page = await visit(f"#/jobs/{job['id']}")
    pause = page.get_by_role("button", name="Pause", include_hidden=True)
    await pause.wait_for()
    service.token = "new since"
    await pause.dispatch_event("click")  # also where a request of the page's own was refused before
    await page.locator("#login").wait_for()
    await page.fill("#token", "new since")
    await page.keyboard.press("Enter")
    await page.locator("h1", has_text="big.tsv").wait_for()


async def test_a_lost_connection_comes_back(service: Service, visit: Visit) -> None:
    job = service.add("big.tsv", state="running", rows=200)
    gone = service.add("gone.tsv")
    page = await visit()
    await stop_clock(page)
    service.refusals["/api/statistics"] = web.json_response({"error": "stopping"}, status=503)
    service.hang_up()
    await says(page, "#lost", "Connection lost, trying again: the service does not answer")
    await says(page, "#link", "offline")
    job |= {"done": 100}
    del service.jobs[gone["id"]]
    await page.clock.run_for(1_000)
    await says(page, "#lost", "trying again: stopping")  # not yet: it waits longer
    await page.clock.run_for(2_000)
    await live(page)
    assert await page.locator("#lost").is_hidden()
    await page.clock.resume()  # without it nothing is drawn
    await says(page, "#jobs", "50 % of 200 rows")
    assert await row(page, "gone.tsv").count() == 0
    service.tell(job, done=200)  # and it listens again
    await row(page, "big.tsv").get_by_text("200 rows", exact=True).wait_for()


async def test_a_silent_connection_counts_as_lost(service: Service, visit: Visit) -> None:
    page = await visit()
    await stop_clock(page)
    await page.reload()
    await live(page)
    streams = service.asked["GET /api/events"]
    await page.clock.run_for(13_000)  # without the statistics of each second
    await says(page, "#lost", "it has been silent for a while")
    await page.clock.run_for(1_000)
    await live(page)
    assert service.asked["GET /api/events"] == streams + 1


async def test_charts_reasons_and_hosts(service: Service, visit: Visit) -> None:
    for _ in range(60):
        service.second(rows=10, failures=1, size=50_000)
    service.hosts = [
        {"host": f"h{n}.test", "rows": 100, "failures": n, "top_reason": "dns" if n else None}
        for n in range(12)
    ]
    job = service.add("a.tsv", state="running")
    service.fail(job, "dns", 30)
    service.fail(job, "not_found", 10)
    page = await visit()
    await says(page, "#figures", "10")
    shown = dict(
        zip(
            await page.locator("#figures dt").all_text_contents(),
            await page.locator("#figures dd").all_text_contents(),
            strict=True,
        )
    )
    assert shown["Rows/s"] == "10"
    assert shown["Pictures/s"] == "9"
    assert shown["Failing"] == "10 %"
    assert shown["Bandwidth"] == "50.0 kB/s"
    assert shown["Disk free"] == "212 GB"
    await says(page, "#rows-chart", "now: 9 pictures, 1 failures")
    assert await page.locator("#rows-chart .tick").all_text_contents() == ["10", "5", "0"]
    path = str(await page.locator("#rows-chart .area.images").get_attribute("d"))
    pairs = [point.split(",") for point in re.findall(r"[\d.]+,[\d.]+", path)]
    points = [(float(x), float(y)) for x, y in pairs]
    assert points[0] == (0.0, 1000.0)  # nothing yet
    assert points[119] == (1000.0, 100.0)  # 9 of 10

    await expect(page.locator("#reasons li")).to_have_text(["dns30 · 75 %", "not found10 · 25 %"])
    await expect(page.locator("#hosts tr")).to_have_count(10)
    await page.get_by_role("button", name="All 12").click()
    await page.locator("#hosts tr").nth(11).wait_for()
    cells = await page.locator("#hosts tr").nth(11).locator("th, td").all_text_contents()
    assert cells == ["h11.test", "100", "11 %", "dns"]
    service.second(rows=40, failures=40, size=0)
    await says(page, "#figures", "13")


async def test_looking_along_a_chart(service: Service, visit: Visit) -> None:
    for number in range(601):
        service.second(rows=number // 5, failures=0, size=0)
    page = await visit(timezone_id="UTC")
    plot = page.locator("#rows-chart .plot")
    await says(page, "#rows-chart", "now: 119 pictures")
    await plot.focus()
    await page.keyboard.press("ArrowLeft")
    assert "118 pictures" in str(await plot.get_attribute("aria-valuetext"))
    await page.keyboard.press("Home")
    await page.keyboard.press("ArrowLeft")
    assert "0 pictures" in str(await plot.get_attribute("aria-valuetext"))
    await page.keyboard.press("PageUp")
    assert "12 pictures" in str(await plot.get_attribute("aria-valuetext"))
    box = await plot.bounding_box()
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 9)
    await says(page, "#rows-chart", "60 pictures")
    await page.mouse.move(0, 0)
    await says(page, "#rows-chart", "now: 119 pictures")


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until what is named so has the focus, and shows it."""
    seen = []
    for _ in range(30):
        await page.keyboard.press("Tab")
        here = await page.evaluate(
            "(({ ariaLabel, textContent, id }) => ariaLabel || textContent || id)"
            "(document.activeElement)"
        )
        if here.startswith(name):
            assert await page.evaluate("document.activeElement.matches(':focus-visible')")
            return
        seen.append(here)
    raise AssertionError(f"{name} not among {seen}")


async def test_with_the_keyboard_alone(service: Service, visit: Visit) -> None:
    page = await visit()
    page.on("filechooser", lambda _: None)  # from now on none opens a window
    await page.evaluate(PAINTED)  # before that a browser takes no keys

    await tab_to(page, "New job")
    await page.keyboard.press("Enter")
    async with page.expect_file_chooser() as chooser:
        await page.keyboard.press("Enter")  # the dialog begins with it
    await (await chooser.value).set_files([tsv()])
    await tab_to(page, "Start the job")
    await page.keyboard.press("Enter")
    await page.locator("h1", has_text="cc.tsv").wait_for()
    assert await page.evaluate("document.activeElement.tagName") == "H1"  # read out
    (job,) = service.jobs.values()
    await tab_to(page, "Pause")
    await page.keyboard.press("Space")
    await says(page, "#job-head", "paused")
    await page.locator(":focus[aria-busy=false]").wait_for()  # before that it takes no press
    await page.keyboard.press("Space")  # the same button
    await says(page, "#job-head", "running")
    service.fail(job, "not_found", 1)
    service.finish(job, {})
    await says(page, "#job-head", "done")
    await tab_to(page, "not found")
    async with page.expect_response("**/outcomes?*reason=not_found*"):
        await page.keyboard.press("Enter")
    await says(page, ".outcomes", "caption 0")
    await tab_to(page, "http://a.test/0.jpg")
    await page.goto(page.url.partition("#")[0] + "#/")
    await tab_to(page, "Delete: cc.tsv")
    await page.keyboard.press("Enter")
    await page.keyboard.press("Escape")
    await page.locator(":focus[aria-busy=false]").wait_for()
    assert await page.evaluate("document.activeElement.textContent") == "Delete"
    await page.keyboard.press("Enter")
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Enter")
    await page.get_by_text("No jobs yet.").wait_for()
    assert await page.evaluate("document.activeElement.tagName") == "H1"


HOSTILE = "<img src=x onerror=\"document.title='had'\">\u202etext</script><script>alert(1)</script>"


async def test_strangers_texts_are_texts(service: Service, visit: Visit) -> None:
    job = service.add(HOSTILE, state="running", why=HOSTILE)
    service.hosts = [{"host": HOSTILE, "rows": 1, "failures": 1, "top_reason": HOSTILE}]
    service.fail(job, HOSTILE, 1, caption=HOSTILE, url="javascript:alert(1)", final_url="HTTP://[")
    service.fail(job, "dns", 1, url="https://a.test/<b>", final_url="http://b.test/")
    page = await visit()
    await says(page, "#jobs h3", "<img src=x")
    await says(page, "#hosts", "<img src=x")
    service.finish(job, {"k": (HOSTILE, jpeg("red"))})
    await page.click("#jobs h3 a")
    await says(page, ".outcomes .caption", "<img src=x")
    await says(page, "#pictures", "</script>")
    links = await page.locator(".outcomes a").evaluate_all("all => all.map(one => one.href)")
    assert links == ["https://a.test/%3Cb%3E", "http://b.test/"]
    assert await page.locator(".outcomes a[rel~=noreferrer]").count() == 2
    assert await page.locator("img[src=x], main script, main b b").count() == 0
    assert await page.title() != "had"


async def test_a_page_of_failures_that_does_not_come(service: Service, visit: Visit) -> None:
    job = service.add("a.tsv", state="running")
    service.fail(job, "dns", 20)
    service.refusals[f"/api/jobs/{job['id']}/outcomes"] = web.json_response(
        {"error": "the shard cannot be read"}, status=503
    )
    page = await visit(f"#/jobs/{job['id']}")
    await says(page, "#failures", "Not to be had: the shard cannot be read")
    await page.locator("#failures").get_by_role("button", name="Try again").click()
    await expect(page.locator(".outcomes li")).to_have_count(15)
    await page.locator("#failures").get_by_role("button", name="Next").focus()
    await page.keyboard.press("Enter")
    await says(page, "#failures", "Page 2")
    assert await page.evaluate("document.activeElement.textContent") == "← Back"
    await page.keyboard.press("Enter")
    await says(page, "#failures", "Page 1")
    await expect(page.locator(".outcomes li")).to_have_count(15)


async def test_a_job_that_is_not_there(service: Service, visit: Visit) -> None:
    page = await visit("#/jobs/none")
    await says(page, "#job", "There is no such job")
    assert await page.locator("#job-body").is_hidden()
    await page.get_by_role("link", name="All jobs").click()
    await page.get_by_text("No jobs yet.").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone_by_day_and_by_night(service: Service, visit: Visit, scheme: str) -> None:
    name = "a-name-without-any-break-in-it-" * 5
    job = service.add(name, rows=12_345_678, state="running", why="disk full: " + "x" * 90)
    service.fail(job, "too_many_pixels", 20, url="http://a.test/" + "long" * 99, caption="y" * 300)
    service.hosts = [{"host": "h" * 99, "rows": 12e6, "failures": 9, "top_reason": "not_an_image"}]
    service.second(rows=12_345, failures=345, size=999_000_000)
    service.finish(job, {"k": ("z" * 200, jpeg("blue"))})
    page = await visit(
        viewport={"width": 360, "height": 740},
        has_touch=True,
        is_mobile=True,
        color_scheme=scheme,
        reduced_motion="reduce",
    )
    for shows, then in (("#jobs h3 a", "#jobs h3 a"), ("#pictures li", "#new")):
        await page.locator(shows).first.wait_for()
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        image = Image.open(io.BytesIO(await page.screenshot())).convert("L")
        assert (np.asarray(image)[2, 2] < 60) == (scheme == "dark")
        await page.locator(then).first.tap()
    await page.click("#options summary")
    assert await page.locator("#submit").evaluate("e => e.scrollWidth - e.clientWidth") == 0
    moving = "e => getComputedStyle(e).transitionDuration"
    assert await page.locator("#job-head .bar i").first.evaluate(moving) == "0s"


async def test_what_another_deletes_goes(service: Service, visit: Visit) -> None:
    jobs = [service.add(name) for name in ("a.tsv", "b.tsv")]
    page = await visit()
    await row(page, "a.tsv").wait_for()
    service.remove(jobs[0])
    await row(page, "a.tsv").wait_for(state="detached")
    assert await row(page, "b.tsv").count() == 1


def test_only_this_script_runs() -> None:
    assert {path.name for path in PAGE.glob("*.js")} == set(SCRIPTS)
    parts = [PAGE / "page.html", *(PAGE / name for name in SCRIPTS)]
    text = "".join(path.read_text() for path in [*parts, SHELL / "shell.html", SHELL / "shell.js"])
    assert "innerHTML" not in text
    assert set(re.findall(r"https?://[\w.]*", text)) <= {
        "https://example.org",  # shown where rows are pasted
        "http://www.w3.org",  # the name of SVG
    }


def test_the_stand_in_keeps_to_the_contract(service: Service) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="no `jsonschema`: pip install it")
    document = json.loads(DOCUMENT)
    job = service.add("a.tsv")
    service.fail(job, "dns", 3)
    service.finish(job, {})
    service.second(rows=3, failures=3, size=9)
    for name, value in {
        "Job": job,
        "Statistics": service.statistics(service.seconds),
        "Shard": service.shards[job["id"]][0],
        "Outcome": service.outcomes[job["id"]][0],
    }.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(value, schema)


def test_the_form_offers_what_the_service_takes() -> None:
    document = json.loads(DOCUMENT)
    taken = {
        item["name"]: item["schema"]
        for item in document["paths"]["/api/jobs"]["post"]["parameters"]
        if item.get("in") == "query"
    }
    form = (PAGE / "page.html").read_text().partition('id="options"')[2].partition("</details>")[0]
    assert set(re.findall(r'name="(\w+)"', form)) == set(taken) - {"name"}
    for name, choices in re.findall(r'<select name="(\w+)">(.*?)</select>', form, re.DOTALL):
        offered = set(re.findall(r'value="(\w+)"', choices))
        assert offered == set(taken[name].get("enum", ("true", "false")))
    for name, most in re.findall(r'name="(\w+)"[^>]* max="(\d+)"', form):
        assert int(most) == taken[name]["maximum"]
