"""Pictures to features, pictures/s: shard to shard, beside Keras and beside PyTorch.

    python -m benchmarks.featurize [--images FOLDER] [--weights W] [--rounds N] [--peer]

All do the same shards of 256-pixel JPEGs in turn, medians over the rounds are compared:

- Keras as the tutorial used it: a picture opened, preprocessed and given to `predict` at a time;
- the same in batches of 32;
- the extractor alone, on pixels that are in memory;
- `capstan featurize`, from image shards to feature shards on the disk, networks loaded before;
- with --peer, a plain PyTorch DataLoader over the same tars and a compiled bfloat16 ResNet50 with
  the same strides (`benchmarks/featurize_peer.py`), in a virtual environment that is made for it.

Then the cosine similarity of every picture's features with those in float32, the share of time in
which the network waited, and the memory of this process as it goes through 100 shards.
Pictures are made up unless a folder of photos is given; weights are random unless some are given.
"""

import argparse
import hashlib
import io
import os
import subprocess
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from benchmarks.train import Round, measure, print_medians
from capstan.cli import import_tensorflow
from capstan.errors import CapstanError
from capstan.featurize.config import Config
from capstan.featurize.tasks import to_do
from capstan.featurize.work import Totals, load_extractor, make_shards
from capstan.records import Answer, Image, Outcome, Row, StoredImage, row_key
from capstan.shards import read_images, write_image_shard

SIDE, STORED = 224, 256  # pixels: what the network sees, and what shards hold
FEW = 32  # pictures a round by one `predict` each
SHARDS, SIZE = 4, 80  # a round
MEMORY_SHARDS, MEMORY_SIZE = 100, 16
PEER = Path(".venv-peer")
PEER_PACKAGES = ["torch>=2.6", "torchvision>=0.21", "numpy", "pillow"]


def main() -> None:
    """Run the benchmark and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="a folder of photos; else made up")
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="PyTorch too: downloads gigabytes")
    parser.add_argument("--peer-python", help="an interpreter that has torch and torchvision")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import_tensorflow()
    pictures = from_folder(arguments.images) if arguments.images else made_up()
    with tempfile.TemporaryDirectory() as folder:
        bench = FeaturizeBench(Path(folder), arguments.weights)
        write_shards(bench.images, pictures, SHARDS, SIZE)
        python = arguments.peer_python or (peer_python() if arguments.peer else None)
        with Peers(python, bench.images) as peers:
            rates = measure(bench.ways() | peers.ways(), arguments.rounds)
            for name in peers.names:  # another process's processor time is not known here
                rates[name] = [(clock, float("nan")) for clock, _ in rates[name]]
            print_medians(rates, "pictures")
        for name, totals in bench.totals.items():
            print(f"{name}: the network waited {100 * totals.waiting:.2f} % of the time")
        print_likeness(bench)
        print_memory(bench, pictures)


@dataclass
class FeaturizeBench:
    """Shards below `folder / images`, and what goes through them."""

    folder: Path
    weights: str

    def __post_init__(self) -> None:
        self.images = self.folder / "images"
        self.totals: dict[str, Totals] = {}
        self.runtimes = ["tensorflow"]
        try:
            import openvino  # noqa: F401

            self.runtimes.append("openvino")
        except ModuleNotFoundError:
            print("without OpenVINO, which is not installed")
        self.extractors = {
            runtime: load_extractor(self.config(runtime)) for runtime in self.runtimes
        }

    def config(self, runtime: str) -> Config:
        """Settings of a run."""
        return Config(self.images, self.folder / "out", self.weights, SIDE, runtime=runtime)

    def pixels(self) -> NDArray[np.uint8]:
        """All pictures, decoded."""
        from capstan.featurize.pictures import decode

        decoded = [decode(image.data, SIDE) for image in self.stored()]
        return np.stack([pixels for pixels in decoded if isinstance(pixels, np.ndarray)])

    def stored(self) -> Iterator[StoredImage]:
        """All pictures of the shards."""
        for tar in sorted(self.images.rglob("*.tar")):
            yield from read_images(tar)

    def ways(self) -> dict[str, Round]:
        """What is measured, by name."""
        pixels = self.pixels()
        batches = pixels[: len(pixels) // 32 * 32]  # the extractor alone pads nothing
        return {
            "Keras, a picture a `predict`": keras_loop(self, 1),
            "Keras, 32 pictures a `predict`": keras_loop(self, 32),
            **{
                f"extractor alone, {runtime}": lambda extractor=extractor: len(
                    extractor.extract(batches)
                )
                for runtime, extractor in self.extractors.items()
            },
            **{f"capstan featurize, {runtime}": self.shards(runtime) for runtime in self.runtimes},
        }

    def shards(self, runtime: str) -> Round:
        """Shard to shard; each round into a new folder."""
        rounds = count()

        def run() -> int:
            output = self.folder / f"{runtime}-{next(rounds)}"
            config = replace(self.config(runtime), output=output)
            tasks = to_do(config)
            totals = make_shards(tasks, self.extractors[runtime], config, lambda _: None)
            self.totals[runtime] = totals
            return totals.pictures

        return run


def keras_loop(bench: FeaturizeBench, batch: int) -> Round:
    """As a user would write it: Pillow, Keras' preprocessing, `predict`."""
    import keras

    from capstan.featurize.weights import load_resnet50

    model, _ = load_resnet50(bench.weights, SIDE)
    preprocess = keras.applications.resnet50.preprocess_input

    def run() -> int:
        images = list(bench.stored())
        images = images[: FEW if batch == 1 else len(images)]
        for start in range(0, len(images), batch):
            opened = (Picture.open(io.BytesIO(each.data)) for each in images[start : start + batch])
            arrays = [np.asarray(each.resize((SIDE, SIDE)), np.float32) for each in opened]
            model.predict(preprocess(np.stack(arrays)), verbose=0)
        return len(images)

    return run


# The peer


class Peers:
    """A PyTorch process for each number of loaders, which goes through the shards when told to."""

    def __init__(self, python: str | None, images: Path) -> None:
        self._python, self._images = python, images
        self._processes: list[subprocess.Popen[str]] = []
        self.names: list[str] = []

    def ways(self) -> dict[str, Round]:
        """What is measured, by name; nothing without an interpreter."""
        if self._python is None:
            return {}
        ways = {f"PyTorch, {n} loaders": self._round(self._start(n)) for n in (1, 2)}
        self.names = list(ways)
        return ways

    def _start(self, loaders: int) -> subprocess.Popen[str]:
        script = Path(__file__).with_name("featurize_peer.py")
        words = [str(self._python), str(script), str(self._images), str(loaders)]
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._processes.append(process)
        return process

    @staticmethod
    def _round(process: subprocess.Popen[str]) -> Round:
        def run() -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("go\n")
            line = process.stdout.readline()
            if not line:
                raise CapstanError("the PyTorch process ended; see above")
            return int(line)

        return run

    def __enter__(self) -> "Peers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.communicate()


def peer_python() -> str:
    """The interpreter of an environment with PyTorch, made the first time."""
    python = PEER / "bin" / "python"
    if not python.exists():
        print(f"making {PEER} (gigabytes, minutes)")
        venv.create(PEER, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER_PACKAGES], check=True)
    return str(python)


# More than speed


def print_likeness(bench: FeaturizeBench) -> None:
    """How near each arithmetic comes to float32."""
    pixels = bench.pixels()
    exact = load_extractor(replace(bench.config("tensorflow"), precision="float32"))
    reference = exact.extract(pixels).astype(np.float64)
    for extractor in bench.extractors.values():
        features = extractor.extract(pixels).astype(np.float64)
        lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(reference, axis=1)
        cosines = (features * reference).sum(axis=1) / lengths
        print(
            f"{extractor!r}: cosine with float32 at least {cosines.min():.5f}, median "
            f"{np.median(cosines):.5f}, 0.999 or more for {(cosines >= 0.999).mean():.1%}"
        )


def print_memory(bench: FeaturizeBench, pictures: Iterator[bytes]) -> None:
    """Resident memory of this process while it goes through many shards."""
    folder = bench.folder / "many"
    write_shards(folder, pictures, MEMORY_SHARDS, MEMORY_SIZE)
    config = replace(bench.config("tensorflow"), input=folder, output=bench.folder / "many-out")
    sizes: list[int] = []
    make_shards(
        to_do(config), bench.extractors["tensorflow"], config, lambda _: sizes.append(resident())
    )
    shown = [sizes[round(share * (len(sizes) - 1))] >> 20 for share in (0.1, 0.25, 0.5, 0.75, 1)]
    print(f"memory at 10, 25, 50, 75 and 100 of {MEMORY_SHARDS} shards: {shown} MiB")


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Pictures


def write_shards(folder: Path, pictures: Iterator[bytes], shards: int, size: int) -> None:
    """Image shards with the next of the pictures, all different."""
    for shard in range(shards):
        chunk = f"bench.tsv/{shard:016d}"
        outcomes = []
        for index in range(size):
            data = next(pictures)
            width, height = Picture.open(io.BytesIO(data)).size
            image = Image(data, width, height, width, height, hashlib.sha256(data).hexdigest())
            row = Row(index, row_key(chunk, index), "a picture", "http://localhost/")
            outcomes.append(Outcome(row, Answer(200, 1, len(data)), image))
        write_image_shard(folder, chunk, outcomes, {})


def made_up() -> Iterator[bytes]:
    """JPEGs of 341 x 256 pixels with the detail of a photo, about 35 KB each."""
    random = np.random.default_rng(0)
    while True:
        layers = [
            np.asarray(
                Picture.fromarray(
                    random.integers(0, 256, (cells, cells * 4 // 3, 3), np.uint8)
                ).resize((341, STORED), Picture.Resampling.BICUBIC),
                np.float32,
            )
            for cells in (3, 12, 48)
        ]
        pixels = 0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]
        yield encoded(Picture.fromarray(pixels.astype(np.uint8)))


def from_folder(folder: Path) -> Iterator[bytes]:
    """Photos with their shorter side brought to 256 pixels, as `capstan ingest` stores them."""
    for path in sorted(folder.iterdir()):
        with Picture.open(path) as picture:
            scale = STORED / min(picture.size)
            size = (round(picture.width * scale), round(picture.height * scale))
            yield encoded(picture.convert("RGB").resize(size))


def encoded(picture: Picture.Image) -> bytes:
    """As a JPEG of quality 95."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    return file.getvalue()


if __name__ == "__main__":
    main()
