"""The records that flow through the pipelines: a row becomes one outcome, an image or a failure."""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache


class Reason(StrEnum):
    """Why a row has no image, or an image no features. The one list, for every stage."""

    BAD_ROW = "bad_row"  # not `caption<TAB>url` in UTF-8
    BAD_URL = "bad_url"  # not an http(s) URL with a host
    FORBIDDEN_ADDRESS = "forbidden_address"  # not a public internet address
    DNS = "dns"
    CONNECT = "connect"
    HOST_DOWN = "host_down"  # its host had brought nothing but trouble for so long: not asked
    TLS = "tls"
    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"  # the connection broke before the body was whole
    PROTOCOL = "protocol"  # an answer that is not HTTP, or a broken encoding
    REDIRECTS = "redirects"  # too many, or to nowhere
    DENIED = "denied"  # 401, 402, 403, 451
    NOT_FOUND = "not_found"  # 404, 410
    RATE_LIMITED = "rate_limited"  # 429
    CLIENT_ERROR = "client_error"  # any other 4xx
    SERVER_ERROR = "server_error"  # 5xx
    UNEXPECTED_STATUS = "unexpected_status"  # a final answer that is neither 2xx, 4xx nor 5xx
    OPTED_OUT = "opted_out"  # X-Robots-Tag: noai or noimageai; Content-Usage: train-ai=n
    ROBOTS = "robots"  # its host's robots.txt, where that is asked, disallows the address
    EMPTY_BODY = "empty_body"
    TOO_LARGE = "too_large"  # more bytes than allowed
    NOT_AN_IMAGE = "not_an_image"  # no allowed image format
    CORRUPT_IMAGE = "corrupt_image"  # a known format that does not decode
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"  # a side shorter than allowed
    DECODER_CRASH = "decoder_crash"  # decoding it ended the decoder's process, twice
    DECODER_TIMEOUT = "decoder_timeout"  # decoding it took too long


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a TSV chunk."""

    index: int  # line number within the chunk, from 0
    key: str  # unique over the data set, see `row_key`
    caption: str
    url: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the web answered for a row, over all its attempts."""

    http_status: int | None = None  # of the last answer, None when there was none
    attempts: int = 0
    bytes: int = 0  # length of the last body, content-decoded
    final_url: str | None = None  # after redirects


@dataclass(frozen=True, slots=True)
class Image:
    """A picture ready for a shard."""

    data: bytes  # JPEG
    width: int
    height: int
    original_width: int
    original_height: int
    sha256: str  # of `data`


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no picture."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one row ended: exactly one of these per row, none dropped."""

    row: Row
    answer: Answer
    result: Image | Failure


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A picture read back from an image shard."""

    key: str
    caption: str
    data: bytes  # JPEG
    sha256: str  # of `data`


@dataclass(frozen=True, slots=True)
class Extractor:
    """What turned pictures into features; features of different extractors never mix."""

    name: str  # network and pooling, e.g. `resnet50-avg`
    weights: str  # as asked for: `imagenet`, `random:SEED` or a file's name
    weights_sha256: str
    image_size: int  # side of the square input, pixels
    preprocessing: str  # named profile, e.g. `caffe-center-crop`

    def same_features(self, other: "Extractor") -> bool:
        """Whether both give the same features; the name under which weights were found is moot."""
        return (self.name, self.weights_sha256, self.image_size, self.preprocessing) == (
            other.name,
            other.weights_sha256,
            other.image_size,
            other.preprocessing,
        )

    def __str__(self) -> str:
        return f"{self.name} {self.image_size}px {self.weights} ({self.weights_sha256[:12]})"


@dataclass(frozen=True, slots=True)
class Feature:
    """Where a picture's feature vector lies in its shard, or why it has none."""

    key: str
    sha256: str  # of the picture
    row: int | None  # index into the shard's array
    reason: Reason | None = None


# What runs, models, their scores and captions say of themselves: `run.json`, `model.json`,
# `metrics.json`, a picture's `NAME.json`; and their version.

RUN_FORMAT = "capstan-run"
MODEL_FORMAT = "capstan-model"
METRICS_FORMAT = "capstan-metrics"
PREDICTION_FORMAT = "capstan-prediction"
RUN_VERSION = MODEL_VERSION = METRICS_VERSION = PREDICTION_VERSION = 1


@dataclass(frozen=True, slots=True)
class PipelineResult:
    """What a run did for one pipeline, as `run.json` lists it."""

    name: str
    datums: int
    done: int
    skipped: int  # unchanged since an earlier run
    failed: int
    seconds: float


def divide_line(line: bytes) -> tuple[bytes, bytes]:
    """Caption and URL of a TSV line, divided at its last tab: URLs hold no tabs, captions may.

    Without a tab all of it is the caption.
    """
    caption, tab, url = line.rpartition(b"\t")
    return (caption, url) if tab else (line, b"")


def row_key(chunk: str, index: int) -> str:
    """Key of a row: its chunk's path in one word, and its line number.

    WebDataset cuts member names at the first dot and pairs by what is left, so keys carry neither
    dots nor slashes: chunk `cc.tsv/0000000000000000`, line 17 is `cc_tsv-0000000000000000-000017`.
    """
    return f"{_one_word(chunk)}-{index:06d}"


@lru_cache(64)
def _one_word(chunk: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", chunk.replace("/", "-"))
