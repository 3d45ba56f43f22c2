"""POST /api/jobs: a TSV piece by piece, its path, or rows, to a job."""

from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from capstan.http.errors import RequestError
from capstan.http.limiter import ConcurrencyLimiter
from capstan.ingest.service.bodies import JSON, TSV, arriving, check_names, check_type, read_object
from capstan.ingest.service.jobs import Job
from capstan.ingest.service.json_views import job_view
from capstan.ingest.service.service import IngestService
from capstan.ingest.service.validation import check, default, document, read_query, shown

OPERATION = "submitJob"
ROOM = 200  # submissions at a time
MAX_JSON = 16 << 20  # bytes
PIECE = 1 << 16  # bytes of rows that are written at once
SCHEMAS: Mapping[str, Any] = document()["components"]["schemas"]
OPTIONS: Mapping[str, Any] = SCHEMAS["Options"]["properties"]
SETTINGS: Mapping[str, Any] = SCHEMAS["Submission"]["properties"]
KEY: Mapping[str, Any] = next(
    each["schema"]
    for each in document()["paths"]["/api/jobs"]["post"]["parameters"]
    if each["name"] == "Idempotency-Key"
)


async def submit(
    service: IngestService, gate: ConcurrencyLimiter, request: web.Request
) -> web.Response:
    """Take a job; it is on disk when this is answered."""
    check_type(request, TSV, JSON)
    query = read_query(request, OPERATION)
    key = request.headers.get("Idempotency-Key")
    if key is not None:
        check(KEY, key, "Idempotency-Key")
    with gate.enter():
        take = _take_tsv if request.content_type == TSV else _take_json
        job, is_new = await take(service, request, query, key)
    headers = {"Location": f"/api/jobs/{job.id}"} if is_new else {}
    return web.json_response(job_view(job), status=201 if is_new else 200, headers=headers)


async def _take_tsv(
    service: IngestService, request: web.Request, query: dict[str, Any], key: str | None
) -> tuple[Job, bool]:
    most = service.settings.limits.max_upload
    if (request.content_length or 0) > most:
        raise RequestError(413, f"a TSV of more than {most:,} bytes; divide it")
    rows_per_chunk = query.pop("rows_per_chunk", default(OPERATION, "rows_per_chunk"))
    name = query.pop("name", default(OPERATION, "name"))
    async with service.submitting(name, query, rows_per_chunk, key) as submission:
        if submission.known is None:
            async for piece in arriving(request):
                await submission.write(piece)
        return await submission.finish()


async def _take_json(
    service: IngestService, request: web.Request, query: dict[str, Any], key: str | None
) -> tuple[Job, bool]:
    content = await read_object(request, MAX_JSON, frozenset(SETTINGS))
    if ("rows" in content) == ("path" in content):
        raise RequestError(400, "give rows, or else path")
    for name in ("name", "path", "rows_per_chunk"):
        if name in content:
            content[name] = check(SETTINGS[name], content[name], name)
    settings = {**query, **content, **_options(content.get("options", {}))}
    given = {name: value for name, value in settings.items() if name in OPTIONS}
    chunk = settings.get("rows_per_chunk", default(OPERATION, "rows_per_chunk"))
    if "path" in content:
        base = settings.get("name")
        return await service.submit_path(content["path"], base, given, chunk, key)
    lines = list(_lines(content["rows"]))
    name = settings.get("name", default(OPERATION, "name"))
    async with service.submitting(name, given, chunk, key) as submission:
        if submission.known is None:
            for piece in _pieces(lines):
                await submission.write(piece)
        return await submission.finish()


def _options(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise RequestError(400, f"options {shown(content)}: give an object")
    check_names(content, frozenset(OPTIONS), "options: ")
    return {name: check(OPTIONS[name], value, name) for name, value in content.items()}


def _lines(rows: Any) -> Iterator[bytes]:
    """The lines of a TSV; raises RefusedError for what would not be one line of two parts."""
    if not isinstance(rows, list) or not rows:
        raise RequestError(400, f"rows {shown(rows)}: give a list of [caption, address]")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or [type(each) for each in row] != [str, str]:
            raise RequestError(400, f"rows[{number}] {shown(row)}: give [caption, address]")
        caption, url = row
        if "\n" in caption or "\n" in url or "\t" in url:
            raise RequestError(400, f"rows[{number}]: a line feed, or a tab in the address")
        try:
            yield f"{caption}\t{url}\n".encode()
        except UnicodeEncodeError:
            raise RequestError(400, f"rows[{number}]: half a surrogate pair; send text") from None


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
