"""TSV rows to image shards: asyncio, uvloop, llhttp, tenacity."""
