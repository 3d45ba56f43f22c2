"""Where pictures come from: files, folders of them, and URLs, fetched as `ingest` fetches."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from capstan.errors import SettingError
from capstan.files import data_files
from capstan.records import Failure

if TYPE_CHECKING:
    from capstan.ingest.config import HttpOptions

SCHEMES = ("http://", "https://")
Source = Path | str  # a file, or a URL
Read = bytes | Failure


def find(words: Sequence[str]) -> list[Source]:
    """The pictures that words of a command line name, in order; raises SettingError for none."""
    return [source for word in words for source in _find(word)]


def _find(word: str) -> Sequence[Source]:
    if word.lower().startswith(SCHEMES):
        return [word]
    path = Path(word)
    if path.is_dir():
        return data_files(path)
    if path.is_file():
        return [path]
    raise SettingError(f"{word}: no such file; name a picture, a folder of them or a URL")


def read(sources: Sequence[Source], web: "HttpOptions") -> list[Read]:
    """The bytes of each picture, or why there are none; URLs are asked once, all together."""
    urls = [source for source in sources if isinstance(source, str)]
    fetched = asyncio.run(_fetch(urls, web)) if urls else iter(())
    return [next(fetched) if isinstance(source, str) else source.read_bytes() for source in sources]


async def _fetch(urls: Sequence[str], web: "HttpOptions") -> Iterator[Read]:
    from capstan.ingest.http.fetch import follow, open_connections

    async with open_connections(web) as connections:
        answers = await asyncio.gather(*(follow(connections, url, web) for url in urls))
    return (answer.body for answer in answers)
