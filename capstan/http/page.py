"""A page in one piece: its style and script inside, so that it asks nothing of anyone else."""

import base64
import hashlib
import html
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from string import Template

from aiohttp import hdrs, web

Handler = Callable[[web.Request], Awaitable[web.Response]]
HERE = Path(__file__).parent


def handler(
    folder: Path,
    title: str,
    scripts: Sequence[str] = ("page.js",),
    data: Mapping[str, object] | None = None,
) -> Handler:
    """What answers with the page of a folder: `page.html`, `page.css` and the scripts.

    It is put together once. `shell.css` and `shell.js`, which all pages share, come before its
    own; `data` is what its scripts read from the body's `dataset`.
    """
    style = _joined(HERE / "shell.css", folder / "page.css")
    script = _joined(HERE / "shell.js", *(folder / name for name in scripts))
    text = Template((HERE / "shell.html").read_text()).substitute(
        title=html.escape(title),
        style=style,
        data=_attributes(data or {}),
        body=(folder / "page.html").read_text(),
        script=script,
    )
    headers = {
        "Content-Security-Policy": policy(style, script),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        hdrs.CACHE_CONTROL: "no-cache",
    }

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/html", headers=headers)

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


def _attributes(data: Mapping[str, object]) -> str:
    return "".join(f' data-{name}="{html.escape(str(value))}"' for name, value in data.items())


def _joined(*files: Path) -> str:
    return "\n".join(file.read_text() for file in files)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
