"""Pre-train the demo's backbone: `python -m capstan.demo.pretrain --output PATH.weights.h5`.

The scenes come from a seed of this program's own, so no picture of the demo is among them.
"""

import argparse
import os
from pathlib import Path

from capstan.cli import LOG_FORMAT_VARIABLE, import_tensorflow, set_up_logging
from capstan.demo.shapes import scenes


def main() -> None:
    """Parse the flags, train and save."""
    parser = argparse.ArgumentParser(prog="python -m capstan.demo.pretrain", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="PATH.weights.h5")
    parser.add_argument("--pictures", type=int, default=8000, help="scenes to learn from")
    parser.add_argument("--image-size", type=int, default=48, help="the network's input, pixels")
    parser.add_argument("--seed", type=int, default=1_000_003, help="must not be the demo's")
    given = parser.parse_args()
    set_up_logging(os.environ.get(LOG_FORMAT_VARIABLE, "plain"), interval=10)
    import_tensorflow()
    from capstan.demo.backbone import PretrainSettings, pretrain

    settings = PretrainSettings(image_size=given.image_size, seed=given.seed)
    pretrain(scenes(given.pictures, given.seed), given.output, settings)


if __name__ == "__main__":
    main()
