"""Caption pictures with a trained model.

By hand: `capstan predict photo.jpg holiday/ https://example.org/a.png --model saved` prints a line
per picture, or, with `--top K`, its K best captions with their log-probabilities; with `--json` an
object per picture, which says why where there is no caption. As a stage: `--input DIR --output DIR`
writes `<picture>.txt` (the caption) and `<picture>.json` beside each other for every file; a file
that is no picture gets a `.json` that says why, and no `.txt`.
"""

import argparse
from pathlib import Path

from capstan.errors import SettingError
from capstan.train.search import add_flags, given


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("pictures", nargs="*", help="pictures, folders of them, http(s) URLs")
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
    parser.add_argument("--batch-size", type=int, default=32, help="pictures at once, at most")
    parser.add_argument(
        "--top",
        type=int,
        default=1,
        metavar="K",
        help="captions of a picture to give, best first; no more than --beam",
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument(
        "--allow-private", action="store_true", help="fetch URLs of private and local addresses too"
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
    if arguments.json and arguments.input:
        raise SettingError("--json is for pictures given by name; --output holds JSON anyway")
    search = given(arguments)

    from capstan.ingest.config import HttpOptions
    from capstan.predict.captions import PredictSettings
    from capstan.predict.run import predict_folder, print_captions

    settings = PredictSettings(
        arguments.model, arguments.weights, arguments.batch_size, arguments.top, search
    )
    if arguments.input:
        predict_folder(settings, arguments.input, arguments.output)
    else:
        web = HttpOptions(allow_private=arguments.allow_private)
        print_captions(settings, arguments.pictures, web, arguments.json)
