"""TSV rows to image shards: asyncio, aiohttp, uvloop, tenacity."""
