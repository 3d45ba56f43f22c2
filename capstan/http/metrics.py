"""What a service counts of its requests, in the text format of Prometheus."""

from collections.abc import Callable

from aiohttp import hdrs, web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
CLIENT_IS_GONE = 499  # as others count it; nobody reads it


class HttpMetrics:
    """A service's numbers, each instance with its own registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "capstan_requests", "Requests", ["endpoint", "status"], registry=registry
        )
        self._latency = Histogram(
            "capstan_request_seconds",
            "Time from a request's header to its answer",
            ["endpoint"],
            buckets=SECONDS,
            registry=registry,
        )

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number as it is when asked."""
        Gauge(f"capstan_{name}", text, registry=self.registry).set_function(value)

    def request(self, endpoint: str, status: int, seconds: float | None) -> None:
        """Count a request; without seconds its time tells nothing, as that of a stream."""
        self._requests.labels(endpoint, f"{status // 100}xx").inc()
        if seconds is not None:
            self._latency.labels(endpoint).observe(seconds)

    def answer(self) -> web.Response:
        """All of it, for Prometheus."""
        return web.Response(
            body=generate_latest(self.registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST}
        )


def endpoint(request: web.Request) -> str:
    """The route of a request as a template, which is one of few; `other` where it has none."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else "other"
