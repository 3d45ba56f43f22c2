"""A page in one piece: its style and script inside, so that it asks nothing of anyone else."""

import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from string import Template

from aiohttp import hdrs, web

Handler = Callable[[web.Request], Awaitable[web.Response]]


def handler(
    folder: Path, scripts: Sequence[str] = ("page.js",), values: Mapping[str, object] | None = None
) -> Handler:
    """What answers with `page.html` of a folder; it is put together once.

    `$style` and `$script` in it become `page.css` and the scripts, one after another; the others
    become `values`.
    """
    style = (folder / "page.css").read_text()
    script = "\n".join((folder / name).read_text() for name in scripts)
    template = Template((folder / "page.html").read_text())
    body = template.substitute(values or {}, style=style, script=script)
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
