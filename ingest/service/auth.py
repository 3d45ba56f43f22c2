"""Who is let in: those with the token, or on loopback without one whoever is no other web site.

A page of another site must not make a browser act here. Two ways are known: it sends requests that
its reader's browser may answer for (CSRF), which `Sec-Fetch-Site` and `Origin` tell, as in Go's
net/http.CrossOriginProtection; or it makes its own name stand for 127.0.0.1 (DNS rebinding), which
`Host` tells. The latter matters only where no token is asked for.
"""

import hmac
import re
import time
from hashlib import sha256

from aiohttp import hdrs, web

from capstan.http.errors import RequestError

OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/api/session"})
COOKIE = "session"
SESSION = 30 * 86_400  # seconds that a cookie is good for
LOCAL = re.compile(r"(localhost|[\w-]+\.localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.ASCII)


class Auth:
    """Knows the token; `check` is asked before anything else."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token is not None else None

    def check(self, request: web.Request) -> None:
        """Raise RefusedError: 403 for a browser on another site's behalf, 401 without the token."""
        if self._token is None and not LOCAL.fullmatch(request.headers.get(hdrs.HOST, "")):
            raise RequestError(403, "Host: give localhost or 127.0.0.1, under which this is served")
        if request.path.startswith("/api"):
            _check_site(request)
        if request.path not in OPEN and not self._knows(request):
            raise RequestError(401, "give the service's token: Authorization: Bearer TOKEN")

    def is_token(self, text: str) -> bool:
        """Whether this is the token; how long that takes tells nothing of it."""
        if self._token is None:
            return True
        digests = (sha256(each).digest() for each in (text.encode(errors="replace"), self._token))
        return hmac.compare_digest(*digests)

    def sign_in(self, request: web.Request, response: web.Response) -> None:
        """Give a cookie, which is good without the token but does not tell it."""
        until = str(int(time.time()) + SESSION)
        response.set_cookie(
            COOKIE,
            f"{until}.{self._signature(until)}",
            max_age=SESSION,
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("X-Forwarded-Proto", request.scheme) == "https",
        )

    def _knows(self, request: web.Request) -> bool:
        if self._token is None:
            return True
        scheme, _, text = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme:
            return scheme.lower() == "bearer" and self.is_token(text.strip())
        until, _, signature = request.cookies.get(COOKIE, "").partition(".")
        is_signed = hmac.compare_digest(self._signature(until).encode(), signature.encode())
        return is_signed and time.time() < int(until)

    def _signature(self, until: str) -> str:
        message = f"capstan session until {until}".encode()
        return hmac.new(self._token or b"", message, sha256).hexdigest()


def _check_site(request: web.Request) -> None:
    site = request.headers.get("Sec-Fetch-Site")
    is_read = request.method in (hdrs.METH_GET, hdrs.METH_HEAD)
    if site is None:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or origin.partition("://")[2] == request.headers.get(hdrs.HOST):
            return
    elif site in ("same-origin", "none") or (
        is_read and request.headers.get("Sec-Fetch-Mode") == "navigate"  # a link from elsewhere
    ):
        return
    raise RequestError(403, "a browser asks this for another site; only its own page may")
