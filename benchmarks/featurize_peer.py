"""The peer of `benchmarks.featurize`: PyTorch as its users write it. Needs nothing of Capstan.

    python featurize_peer.py SHARDS LOADERS

A DataLoader over the tars, torchvision's transforms, ResNet50 in bfloat16, channels last, compiled
and frozen, features to a `.npy`. Its strides are those of Keras' ResNet50, for equal work. Goes
through all shards once for every line of standard input, then prints how many pictures it did.
"""

import io
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._inductor.config
import torchvision
from PIL import Image
from torchvision import transforms

BATCH = 32


class PeerPictures(torch.utils.data.IterableDataset[torch.Tensor]):  # type: ignore[misc]
    """The JPEGs of tars, cropped and normalised; each loader takes every nth tar."""

    def __init__(self, tars: list[Path]) -> None:
        self._tars = tars
        self._prepare = transforms.Compose(
            [
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = torch.utils.data.get_worker_info()
        for tar in self._tars[worker.id :: worker.num_workers]:
            with tarfile.open(tar) as file:
                for member in file:
                    if member.name.endswith(".jpg"):
                        stream = file.extractfile(member)
                        data = stream.read() if stream else b""
                        yield self._prepare(Image.open(io.BytesIO(data)).convert("RGB"))


def main() -> None:
    """Load, then serve."""
    tars = sorted(Path(sys.argv[1]).rglob("*.tar"))
    network = compiled()
    loader = torch.utils.data.DataLoader(
        PeerPictures(tars), BATCH, num_workers=int(sys.argv[2]), persistent_workers=True
    )
    with tempfile.TemporaryDirectory() as folder:
        for _ in sys.stdin:
            parts = [network(batch) for batch in loader]
            features = torch.cat(parts).to(torch.float16).numpy()
            np.save(Path(folder, "features.npy"), features)
            print(len(features), flush=True)


def compiled() -> Any:
    """Headless ResNet50: (N, 3, 224, 224) float32 to (N, 2048) float32."""
    torch._inductor.config.freezing = True
    model = torchvision.models.resnet50(weights=None)
    model.fc = torch.nn.Identity()
    for layer in (model.layer2, model.layer3, model.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    model = torch.compile(model.eval().to(torch.bfloat16, memory_format=torch.channels_last))

    def run(batch: torch.Tensor) -> torch.Tensor:
        missing = BATCH - len(batch)  # or it would be compiled again for the last one's shape
        whole = torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch
        with torch.inference_mode():
            pixels = whole.to(torch.bfloat16, memory_format=torch.channels_last)
            return model(pixels)[: len(batch)].float()

    return run


if __name__ == "__main__":
    main()
