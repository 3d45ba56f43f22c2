"""What jobs made, over HTTP: shards and their files, outcomes, pictures; of whole shards only.

Files are found by the names of chunks that the service says are whole, never by a path that was
asked for. All reading is done in threads of its own, a few at a time.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from aiohttp import hdrs, web

from capstan.errors import DataError
from capstan.http.errors import RequestError
from capstan.ingest.service.events import Streams
from capstan.ingest.service.outcomes import (
    chunk_key,
    newest_pictures,
    one_parquet,
    read_page,
    split_key,
)
from capstan.ingest.service.pictures import read_picture
from capstan.ingest.service.service import IngestService
from capstan.ingest.service.validation import default, read_query
from capstan.shards import STATS_SUFFIX, read_image_stats

logger = logging.getLogger(__name__)

T = TypeVar("T")
THREADS = 4
DOWNLOADS = 100  # whole parquets at a time
PARQUET = "application/vnd.apache.parquet"
TYPES = {".tar": "application/x-tar", ".parquet": PARQUET, STATS_SUFFIX: "application/json"}


class Results:
    """Answers with what lies in the folders of jobs."""

    def __init__(self, service: IngestService) -> None:
        self._service = service
        self._threads = ThreadPoolExecutor(THREADS, "read")
        self.downloads = Streams(DOWNLOADS, "parquets under way")

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        job = "/api/jobs/{id}"
        return [
            web.get(f"{job}/shards", self.shards),
            web.get(f"{job}/files/{{name:.+}}", self.file),
            web.get(f"{job}/outcomes", self.outcomes),
            web.get(f"{job}/outcomes.parquet", self.parquet),
            web.get(f"{job}/pictures", self.pictures),
            web.get(f"{job}/pictures/{{key}}", self.picture),
        ]

    def close(self) -> None:
        """Begin no reading any more."""
        self.downloads.end_all()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def shards(self, request: web.Request) -> web.Response:
        """A page of the shards of a job, by chunk."""
        folder, chunks, query = self._asked(request, "listShards")
        limit = query.get("limit", default("listShards", "limit"))
        if after := query.get("after"):
            chunks = [chunk for chunk in chunks if chunk > after]
        page = chunks[:limit]
        place = f"/api/jobs/{request.match_info['id']}/files"
        shards = await self._read(_shard_views, folder, page, place)
        return web.json_response(
            {"shards": shards, "next": page[-1] if len(chunks) > limit else None}
        )

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A file of a shard, or a range of it."""
        folder, chunks, _ = self._asked(request, "getFile")
        name = request.match_info["name"]
        suffix = next((each for each in TYPES if name.endswith(each)), "")
        if not suffix or name.removesuffix(suffix) not in chunks:
            raise RequestError(
                404, f"no file {name[:200]!r} of a whole shard; see the job's shards"
            )
        headers = {hdrs.CONTENT_TYPE: TYPES[suffix], hdrs.CONTENT_DISPOSITION: "attachment"}
        return web.FileResponse(folder / name, headers=headers)

    async def outcomes(self, request: web.Request) -> web.Response:
        """A page of outcomes, in the order of the rows."""
        folder, chunks, query = self._asked(request, "listOutcomes")
        limit = query.pop("limit", default("listOutcomes", "limit"))
        after = None
        if (text := query.pop("after", None)) is not None and (after := split_key(text)) is None:
            raise RequestError(400, "after: not a row's key; give `next` of the page before")
        found, more = await self._read(read_page, folder, chunks, query, after, limit)
        return web.json_response({"outcomes": found, "next": more})

    async def parquet(self, request: web.Request) -> web.StreamResponse:
        """All outcomes as one file, made while it is sent."""
        folder, chunks, _ = self._asked(request, "getOutcomesParquet")
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: PARQUET,
                hdrs.CONTENT_DISPOSITION: 'attachment; filename="outcomes.parquet"',
            }
        )
        is_whole = False
        async with self.downloads.enter():
            await response.prepare(request)
            pieces = one_parquet(folder, chunks)
            is_whole = request.method == hdrs.METH_HEAD or await self._send(response, pieces)
        if not is_whole and request.transport:
            request.transport.abort()  # it must not look whole
        return response

    async def _send(self, response: web.StreamResponse, pieces: Iterator[bytes]) -> bool:
        while True:
            try:
                piece = await self._read(next, pieces, None)
            except (DataError, OSError):
                logger.exception("a parquet of outcomes is cut short")
                return False
            if piece is None:
                return True
            await response.write(piece)

    async def pictures(self, request: web.Request) -> web.Response:
        """The newest pictures."""
        folder, chunks, query = self._asked(request, "listPictures")
        limit = query.get("limit", default("listPictures", "limit"))
        found = await self._read(newest_pictures, folder, chunks, limit)
        for picture in found:
            picture["url"] = f"{request.path}/{picture['key']}"
        return web.json_response({"pictures": found})

    async def picture(self, request: web.Request) -> web.Response:
        """A picture."""
        folder, chunks, _ = self._asked(request, "getPicture")
        key = request.match_info["key"]
        parted = split_key(key)
        chunk = next((each for each in chunks if parted and chunk_key(each) == parted[0]), None)
        data = await self._read(read_picture, folder / f"{chunk}.tar", key) if chunk else None
        if data is None:
            raise RequestError(404, f"no picture {key[:200]!r} in a whole shard")
        headers = {hdrs.CACHE_CONTROL: "private, max-age=3600", hdrs.CONTENT_TYPE: "image/jpeg"}
        return web.Response(body=data, headers=headers)

    def _asked(
        self, request: web.Request, operation: str
    ) -> tuple[Path, Sequence[str], dict[str, Any]]:
        """A job's folder, its whole chunks, the query; raises NoSuchJobError, RefusedError."""
        id = request.match_info["id"]
        folder, chunks = self._service.shards_folder(id), self._service.whole_chunks(id)
        return folder, chunks, read_query(request, operation)

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        work = partial(function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _shard_views(folder: Path, chunks: Sequence[str], place: str) -> list[dict[str, Any]]:
    return [_shard_view(folder, chunk, place) for chunk in chunks]


def _shard_view(folder: Path, chunk: str, place: str) -> dict[str, Any]:
    path = folder / f"{chunk}{STATS_SUFFIX}"
    stats = read_image_stats(path)
    files = {**stats["files"], STATS_SUFFIX: {"bytes": path.stat().st_size}}
    return {
        "chunk": chunk,
        "rows": stats["rows"],
        "images": stats["images"],
        "failures": stats["failures"],
        "files": [
            {
                "name": f"{chunk}{suffix}",
                "bytes": about["bytes"],
                "sha256": about.get("sha256"),
                "url": f"{place}/{quote(f'{chunk}{suffix}')}",
            }
            for suffix, about in files.items()
        ],
    }
