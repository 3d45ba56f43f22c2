"""What the service counts, in the text format of Prometheus: read from it when asked.

Labels are of few values: states, reasons, routes. Hosts and jobs are none: there are too many.
"""

import platform
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from capstan import __version__
from capstan.http import metrics
from capstan.ingest.service.jobs import State
from capstan.ingest.service.service import IngestService
from capstan.records import Reason

OK = "ok"  # a row's outcome, in place of a reason


class ServiceMetrics(metrics.HttpMetrics):
    """The service's numbers and those of its requests."""

    def __init__(self, service: IngestService) -> None:
        super().__init__()
        self.registry.register(ServiceCollector(service))
        self.watch("ingest_ready", "Whether it takes jobs", lambda: not service.why_not_ready())


class ServiceCollector(Collector):
    """One look at the service for all its numbers, so that they agree."""

    def __init__(self, service: IngestService) -> None:
        self._service = service

    def describe(self) -> Iterator[Metric]:
        """Nothing: else it would be asked before it can answer."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The numbers as they are now."""
        now = self._service.statistics(1)
        jobs = GaugeMetricFamily("capstan_ingest_jobs", "Jobs by state", labels=["state"])
        for state in State:
            jobs.add_metric([state.value], now.jobs.get(state, 0))
        rows = CounterMetricFamily(
            "capstan_ingest_rows", "Rows that ended, ok or by why not", labels=["reason"]
        )
        rows.add_metric([OK], now.images)
        for reason in Reason:
            rows.add_metric([reason.value], now.reasons.get(reason, 0))
        received = CounterMetricFamily(
            "capstan_ingest_received_bytes", "Bodies that hosts sent, unpacked"
        )
        received.add_metric([], now.bytes)
        yield from (jobs, rows, received)
        for name, text, value in (
            ("rows_in_flight", "Rows being fetched or decoded", now.in_flight),
            ("rows_queued", "Rows of unfinished jobs that have not ended", now.queued_rows),
            ("disk_free_bytes", "Free where jobs and shards are kept", now.disk_free),
            ("workers", "Worker processes that are alive", now.processes),
            ("start_time_seconds", "When the service was started, since 1970", now.since),
        ):
            yield GaugeMetricFamily(f"capstan_ingest_{name}", text, value)
        build = GaugeMetricFamily(
            "capstan_build_info", "What this is: 1", labels=["version", "python"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
