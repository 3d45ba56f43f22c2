"""The page at `/`: one file with its style and script inside, which asks nothing of anyone else."""

import base64
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from string import Template

from aiohttp import hdrs, web

from serve.config import Limits

HERE = Path(__file__).parent


def handler(limits: Limits) -> Callable[[web.Request], Awaitable[web.Response]]:
    """What answers with the page; it is put together once."""
    style, script = ((HERE / f"page.{kind}").read_text() for kind in ("css", "js"))
    template = Template((HERE / "page.html").read_text())
    body = template.substitute(
        style=style, script=script, max_bytes=limits.max_bytes, can_explain=limits.explanations > 0
    )
    headers = {
        "Content-Security-Policy": policy(style, script),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        hdrs.CACHE_CONTROL: "no-cache",
    }

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=body, content_type="text/html", headers=headers)

    return page


def policy(style: str, script: str) -> str:
    """A Content-Security-Policy: this script, this style and pictures of its own; no other host."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "img-src 'self' blob: data:",
            "connect-src 'self' blob: data:",
            "require-trusted-types-for 'script'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
