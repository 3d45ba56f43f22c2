"""Decoders that crash, hang or count, for the processes of `capstan.ingest.decode.pool` to run."""

import os
import signal

from capstan.ingest.config import ImageOptions
from capstan.records import Failure, Image, Reason

GOOD, CRASH, HANG, ODD = b"good", b"crash", b"hang", b"odd"


def decode(data: bytes, pictures: ImageOptions) -> Image | Failure:
    """A picture as wide as its data are long and as high as this process's number."""
    if data.startswith(CRASH):
        os.kill(os.getpid(), signal.SIGSEGV)
    while data.startswith(HANG):
        pass
    if data.startswith(ODD):
        raise RuntimeError("a defect of ours")
    if data.startswith(GOOD):
        return Image(data, len(data), os.getpid(), 1, 1, "")
    return Failure(Reason.NOT_AN_IMAGE)


def crash_at_first(data: bytes, pictures: ImageOptions) -> Image | Failure:
    """As `decode`, but only once for each file that the data name."""
    if data.startswith(CRASH):
        name = data.removeprefix(CRASH).decode()
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            data = GOOD
    return decode(data, pictures)
