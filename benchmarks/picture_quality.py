"""How near resized pictures come to a full decode and Lanczos, and what each step costs."""

import io
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import PIL
import PIL.Image
from numpy.typing import NDArray
from PIL.Image import Resampling

from capstan.ingest.config import ImageOptions
from capstan.ingest.decode import jpeg
from capstan.ingest.decode.images import resized, shrink

QUALITY = ImageOptions.jpeg_quality

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
Size = tuple[int, int]  # width, height
Result = tuple[Pixels, bytes, tuple[float, float, float]]  # resized, stored, seconds of each step
Way = Callable[[bytes, Size], Result]


def compare(data: Sequence[bytes], side: int) -> None:
    """Print each way's likeness, before and after it is stored, and its times in one thread."""
    print(f"{len(data)} JPEGs to {side}, quality {QUALITY}; medians; Pillow {PIL.__version__}")
    print("way         pixels dB    SSIM   stored dB    SSIM   decode  resize  encode ms   bytes")
    targets = [resized(jpeg.read(body).size, "keep_ratio", side) for body in data]
    for name, way in ways().items():
        rows = [measured(way, body, target) for body, target in zip(data, targets, strict=True)]
        a, b, c, d, *times, size = (statistics.median(column) for column in zip(*rows, strict=True))
        milliseconds = "  ".join(f"{value * 1e3:6.2f}" for value in times)
        print(f"{name:<11} {a:9.2f} {b:7.4f} {c:11.2f} {d:7.4f}   {milliseconds} {size:10,.0f}")


def measured(way: Way, body: bytes, target: Size) -> tuple[float, ...]:
    """PSNR and SSIM of the pixels, of the stored picture, three times, and bytes."""
    picture = PIL.Image.open(io.BytesIO(body)).convert("RGB")
    truth = np.asarray(picture.resize(target, Resampling.LANCZOS))
    pixels, stored, times = way(body, target)
    kept = np.asarray(PIL.Image.open(io.BytesIO(stored)))
    return *likeness(truth, pixels), *likeness(truth, kept), *times, len(stored)


def ways() -> dict[str, Way]:
    """Ways to resize, by name."""
    found: dict[str, Way] = {"capstan": as_capstan}
    try:
        import cv2
    except ImportError:
        return found
    return found | {"img2dataset": partial(as_img2dataset, cv2)}


def as_capstan(body: bytes, target: Size) -> Result:
    """As `capstan.ingest.decode.images.prepare` does it."""
    clock = [time.perf_counter()]
    read = jpeg.read(body)
    decoded = jpeg.decode(read, target)
    clock.append(time.perf_counter())
    picture = shrink(decoded, target, read.size)
    clock.append(time.perf_counter())
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    clock.append(time.perf_counter())
    return np.asarray(picture.convert("RGB")), file.getvalue(), steps(clock)


def as_img2dataset(cv2: Any, body: bytes, target: Size) -> Result:
    """Full decode, area interpolation, by OpenCV in one thread as img2dataset sets it."""
    cv2.setNumThreads(1)
    clock = [time.perf_counter()]
    decoded = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    clock.append(time.perf_counter())
    picture = cv2.resize(decoded, target, interpolation=cv2.INTER_AREA)
    clock.append(time.perf_counter())
    _, stored = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    clock.append(time.perf_counter())
    return picture[..., ::-1], stored.tobytes(), steps(clock)


def steps(clock: Sequence[float]) -> tuple[float, float, float]:
    """The three times between four."""
    return (clock[1] - clock[0], clock[2] - clock[1], clock[3] - clock[2])


def likeness(truth: Pixels, found: Pixels) -> tuple[float, float]:
    """PSNR in dB and SSIM (Wang et al. 2004) of two pictures of the same size."""
    import skimage.metrics

    similarity: Any = skimage.metrics.structural_similarity
    error = float(np.mean((truth.astype(float) - found) ** 2))
    decibels = 10 * math.log10(255**2 / max(error, 1e-9))
    return decibels, float(similarity(truth, found, channel_axis=2))
