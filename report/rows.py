"""What became of every row: the funnel, and failures by reason and by host."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from capstan.feature_shards import EXAMPLES, FEATURES
from capstan.files import data_files, read_table
from capstan.records import Reason
from capstan.report.run import Run
from capstan.shards import OUTCOMES_SUFFIX, VERSION, read_outcomes

TOP_HOSTS = 10
NO_HOST = "(no host)"
HOST = r"^(?i:https?)://(?:[^/?#]*@)?(?P<host>\[[^\]/]*\]|[^/:?#\\]+)"

# Reasons that are found in a body that came whole; all others mean that none came.
INVALID = {
    Reason.NOT_AN_IMAGE,
    Reason.CORRUPT_IMAGE,
    Reason.TOO_MANY_PIXELS,
    Reason.TOO_SMALL,
    Reason.DECODER_CRASH,
    Reason.DECODER_TIMEOUT,
}
WORDS = {
    Reason.BAD_ROW: "the line is not a caption, a tab and an address",
    Reason.BAD_URL: "the address is not a web address",
    Reason.FORBIDDEN_ADDRESS: "the address is not on the public internet",
    Reason.DNS: "no such host is known",
    Reason.CONNECT: "the host does not take connections",
    Reason.HOST_DOWN: "the host brought nothing but trouble, so it was not asked",
    Reason.TLS: "the host's certificate or encryption is broken",
    Reason.TIMEOUT: "the host took too long",
    Reason.DISCONNECTED: "the connection broke off half way",
    Reason.PROTOCOL: "the answer is not proper HTTP",
    Reason.REDIRECTS: "sent from address to address without end",
    Reason.DENIED: "the host refuses access",
    Reason.NOT_FOUND: "the picture is gone",
    Reason.RATE_LIMITED: "the host asked for fewer requests",
    Reason.CLIENT_ERROR: "the host refuses the request",
    Reason.SERVER_ERROR: "the host is out of order",
    Reason.UNEXPECTED_STATUS: "an answer nobody expects",
    Reason.OPTED_OUT: "the owner asks not to be used for AI",
    Reason.ROBOTS: "the host's robots.txt disallows the address",
    Reason.EMPTY_BODY: "an answer with nothing in it",
    Reason.TOO_LARGE: "more bytes than allowed",
    Reason.NOT_AN_IMAGE: "something else than a picture came",
    Reason.CORRUPT_IMAGE: "the picture is damaged",
    Reason.TOO_MANY_PIXELS: "more pixels than allowed",
    Reason.TOO_SMALL: "the picture is too small",
    Reason.DECODER_CRASH: "decoding the picture ended the decoder",
    Reason.DECODER_TIMEOUT: "decoding the picture took too long",
}


@dataclass
class RowCounts:
    """Counts over all shards, filled shard by shard: no column of all rows is ever held."""

    total: int = 0
    bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)  # all rows
    failures: dict[str, Counter[str]] = field(default_factory=dict)  # host -> reasons
    reason_urls: dict[str, str] = field(default_factory=dict)  # one example each
    host_urls: dict[str, str] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Rows that ended as a picture."""
        return self.total - self.reasons.total()

    @property
    def fetched(self) -> int:
        """Rows whose body came whole, picture or not."""
        return self.images + sum(self.reasons[reason] for reason in INVALID)

    def add(self, table: pa.Table) -> None:
        """Count the rows of one image shard (`OUTCOME_SCHEMA`)."""
        hosts = pc.utf8_lower(pc.struct_field(pc.extract_regex(table["url"], HOST), "host"))
        table = table.append_column("host", pc.fill_null(hosts, NO_HOST))
        self.total += len(table)
        self.bytes += pc.sum(table["bytes"]).as_py() or 0
        self.hosts.update(_counts(table["host"]))
        failed = table.filter(pc.is_valid(table["reason"]))
        self.reasons.update(_counts(failed["reason"]))
        groups = failed.group_by(["host", "reason"], use_threads=False)
        groups = groups.aggregate([("key", "count", pc.CountOptions("all")), ("url", "first")])
        for group in groups.to_pylist():
            host, reason, url = group["host"], group["reason"], group["url_first"] or ""
            self.failures.setdefault(host, Counter())[reason] += group["key_count"]
            self.reason_urls.setdefault(reason, url)
            self.host_urls.setdefault(host, url)


@dataclass(frozen=True)
class ExampleCounts:
    """Rows of the training shards."""

    train: int
    held_out: int
    cleaning: str  # name of the cleaning profile


@dataclass(frozen=True)
class Featurized:
    """Rows of the feature shards."""

    rows: int
    reasons: Mapping[str, int]
    extractor: Mapping[str, Any]


@dataclass(frozen=True)
class FunnelStep:
    """One bar of the funnel; `count` is None when its stage was not run."""

    name: str
    words: str
    count: int | None
    share: float  # of all rows, 0..1
    lost_share: float  # of all rows, 0..1
    lost: int  # since the step before
    held_out: int = 0  # part of `count` that is kept for testing


@dataclass(frozen=True)
class Failed:
    """A line of the failure tables."""

    name: str
    words: str
    count: int
    of: int  # rows this is a part of
    example: str


def read_rows(run: Run, keys: Collection[str]) -> tuple[RowCounts | None, dict[str, Path]]:
    """Count all outcomes, and find in which tar the pictures of `keys` lie."""
    rows, tars = RowCounts(), {}
    wanted = pa.array(sorted(keys), pa.string())
    stored = data_files(run.repo("images"), ".parquet")
    paths = stored or data_files(run.repo("features"), OUTCOMES_SUFFIX)
    for path in paths:
        table = read_outcomes(path)
        rows.add(table)
        if not stored:
            continue  # `capstan ingest --featurize`: pictures that were never written
        for key in table["key"].filter(pc.is_in(table["key"], wanted)).to_pylist():
            tars[key] = path.with_suffix(".tar")
    return (rows if paths else None), tars


def read_featurized(run: Run) -> Featurized | None:
    """Count the rows that have features."""
    rows, reasons, extractor = 0, Counter[str](), None
    for table, manifest in _tables(run.repo("features"), FEATURES):
        rows += len(table) - table["row"].null_count
        reasons.update(_counts(table["reason"].drop_null()))
        extractor = manifest["extractor"]
    return None if extractor is None else Featurized(rows, reasons, extractor)


def read_examples(run: Run) -> ExampleCounts | None:
    """Count the rows to train and to test on."""
    splits, cleaning = Counter[str](), None
    for table, manifest in _tables(run.repo("consolidate"), EXAMPLES):
        splits.update(_counts(table["split"]))
        cleaning = manifest["cleaning"]
    if cleaning is None:
        return None
    return ExampleCounts(splits["train"], splits.total() - splits["train"], cleaning)


def _tables(directory: Path, format: str) -> Iterator[tuple[pa.Table, dict[str, Any]]]:
    for path in data_files(directory, ".parquet"):
        if not path.name.endswith(OUTCOMES_SUFFIX):
            yield read_table(path, format, VERSION)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts = pc.value_counts(column)
    return dict(
        zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)
    )


def funnel(
    rows: RowCounts | None,
    featurized: Featurized | None,
    examples: ExampleCounts | None,
    trained: bool,
) -> list[FunnelStep]:
    """Rows -> fetched -> valid -> featurized -> trained, each against the one before."""
    ingested = (None,) * 3 if rows is None else (rows.total, rows.fetched, rows.images)
    held_out = examples.held_out if examples else 0
    counts = [
        ("rows", "lines of caption and address", ingested[0]),
        ("fetched", "an answer came whole", ingested[1]),
        ("valid", "and it is a sound picture", ingested[2]),
        ("featurized", "looked at by the network", featurized.rows if featurized else None),
        (
            "trained on" if trained else "to train on",
            "or kept apart to test with",
            examples.train + held_out if examples else None,
        ),
    ]
    steps: list[FunnelStep] = []
    total = max(1, ingested[0] or 1)
    for name, words, count in counts:
        before = steps[-1].count if steps else None
        lost = 0 if count is None or before is None else max(0, before - count)
        steps.append(FunnelStep(name, words, count, (count or 0) / total, lost / total, lost))
    steps[-1] = replace(steps[-1], held_out=held_out)
    return steps


def by_reason(rows: RowCounts, featurized: Featurized | None) -> list[Failed]:
    """All reasons, the most frequent first; those met by the network are counted too."""
    counts = rows.reasons + Counter(featurized.reasons if featurized else {})
    return reason_lines(counts, rows.total, rows.reason_urls)


def reason_lines(
    counts: Mapping[str, int], total: int, urls: Mapping[str, str] | None = None
) -> list[Failed]:
    """Counts by reason as lines of a table, of `total` rows; `urls` are examples."""
    return [
        Failed(reason.replace("_", " "), _words(reason), count, total, (urls or {}).get(reason, ""))
        for reason, count in Counter(counts).most_common()
    ]


def by_host(rows: RowCounts) -> Sequence[Failed]:
    """The hosts with most failures, each with its commonest reason."""
    worst = sorted(rows.failures.items(), key=lambda item: (-item[1].total(), item[0]))
    return [
        Failed(host, _main_reason(reasons), reasons.total(), rows.hosts[host], rows.host_urls[host])
        for host, reasons in worst[:TOP_HOSTS]
    ]


def _words(reason: str) -> str:
    return WORDS[Reason(reason)] if reason in set(Reason) else ""


def _main_reason(reasons: Counter[str]) -> str:
    (reason, count), *others = reasons.most_common()
    return f"{'mostly ' if others else ''}{reason.replace('_', ' ')}, {count:,}"
