"""Caption pictures with a trained model.

By hand: `capstan predict photo.jpg holiday/ --model saved` prints a line per picture, or, with
`--top K`, its K best captions with their log-probabilities. As a stage: `--input DIR --output DIR`
writes `<picture>.txt` (the caption) and `<picture>.json` beside each other for every file; a file
that is no picture gets a `.json` that says why, and no `.txt`.
"""

import argparse
from pathlib import Path

from pipeline.errors import SettingError
from train.search import add_flags, given


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("pictures", nargs="*", type=Path, help="pictures, or folders of them")
    parser.add_argument(
        "--model", type=Path, required=True, help="the folder `saved` that `capstan train` wrote"
    )
    parser.add_argument("--input", type=Path, help="folder of pictures, for --output")
    parser.add_argument("--output", type=Path, help="folder for captions, one file a picture")
    parser.add_argument(
        "--weights",
        help="the extractor's weights, as for `capstan featurize`; by default those that the "
        "model was trained with, if their name says where they are",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="pictures at once")
    parser.add_argument(
        "--top",
        type=int,
        default=1,
        metavar="K",
        help="captions of a picture to give, best first; no more than --beam",
    )
    add_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if bool(arguments.pictures) == bool(arguments.input):
        raise SettingError("give either pictures to caption, or --input and --output")
    if bool(arguments.input) != bool(arguments.output):
        raise SettingError("--input and --output go together")
    if arguments.batch_size < 1:
        raise SettingError(f"--batch-size {arguments.batch_size}: give at least 1")
    if arguments.top < 1:
        raise SettingError(f"--top {arguments.top}: give at least 1")
    search = given(arguments)

    from predict.run import Settings, predict_folder, print_captions

    settings = Settings(
        arguments.model, arguments.weights, arguments.batch_size, arguments.top, search
    )
    if arguments.input:
        predict_folder(settings, arguments.input, arguments.output)
    else:
        print_captions(settings, arguments.pictures)
