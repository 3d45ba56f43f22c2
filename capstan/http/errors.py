"""Why a request is not answered as asked, said to its client in JSON: a status and a line."""

from aiohttp import hdrs, web


class RequestError(Exception):
    """A request that is not answered as asked. `status` is 4xx, or 503 and 507 for want of means.

    `reason` is a word for programs, where there is one; `retry_after` in seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        reason: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.retry_after = status, reason, retry_after


def error_response(error: RequestError) -> web.Response:
    """What its client is told."""
    more = {"reason": error.reason} if error.reason else {}
    headers = {} if error.retry_after is None else {hdrs.RETRY_AFTER: str(error.retry_after)}
    return web.json_response({"error": str(error), **more}, status=error.status, headers=headers)


def http_error_response(request: web.Request, error: web.HTTPException) -> web.Response:
    """The same of what aiohttp refuses: no such address, no such method."""
    allow = {name: value for name, value in error.headers.items() if name == hdrs.ALLOW}
    message = f"{request.method} {request.path}: {error.reason}"
    return web.json_response({"error": message}, status=error.status, headers=allow)
