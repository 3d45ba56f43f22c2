"""What the server counts, in the text format of Prometheus."""

from prometheus_client import Counter, Histogram

from capstan.http import metrics

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
OK = "ok"  # of a picture, in place of a reason


class ServerMetrics(metrics.HttpMetrics):
    """The server's numbers, each instance with its own registry."""

    def __init__(self) -> None:
        super().__init__()
        self._pictures = Counter(
            "capstan_pictures", "Pictures, ok or by why not", ["reason"], registry=self.registry
        )
        self._sizes = Histogram(
            "capstan_batch_pictures", "Pictures of a batch", buckets=SIZES, registry=self.registry
        )
        self._computing = Histogram(
            "capstan_batch_seconds",
            "Time to compute a batch",
            buckets=metrics.SECONDS,
            registry=self.registry,
        )

    def picture(self, reason: str) -> None:
        """Count a picture that was decoded, or why it could not be."""
        self._pictures.labels(reason).inc()

    def batch(self, size: int, seconds: float) -> None:
        """Count a batch."""
        self._sizes.observe(size)
        self._computing.observe(seconds)
