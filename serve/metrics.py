"""What the server counts, in the text format of Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
OK = "ok"  # of a picture, in place of a reason


class Metrics:
    """The server's numbers, each instance with its own registry."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
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
        self._pictures = Counter(
            "capstan_pictures", "Pictures, ok or by why not", ["reason"], registry=registry
        )
        self._sizes = Histogram(
            "capstan_batch_pictures", "Pictures of a batch", buckets=SIZES, registry=registry
        )
        self._computing = Histogram(
            "capstan_batch_seconds", "Time to compute a batch", buckets=SECONDS, registry=registry
        )

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number as it is when asked."""
        Gauge(f"capstan_{name}", text, registry=self._registry).set_function(value)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(endpoint, f"{status // 100}xx").inc()
        self._latency.labels(endpoint).observe(seconds)

    def picture(self, reason: str) -> None:
        """Count a picture that was decoded, or why it could not be."""
        self._pictures.labels(reason).inc()

    def batch(self, size: int, seconds: float) -> None:
        """Count a batch."""
        self._sizes.observe(size)
        self._computing.observe(seconds)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
