"""Serve captions over HTTP: one model, loaded once; requests are computed in batches.

GET / is a page to drop pictures on. Three ways for programs to ask, all on one port: POST /caption
with a picture as the body or in a form; the REST interface of TensorFlow Serving
(POST /v1/models/capstan:predict); and KServe's Open Inference Protocol
(POST /v2/models/capstan/infer). POST /explain, asked like /caption, tells which part of the picture
each word leaned on. GET /v2/health/ready, /healthz and /metrics are for those
who run it. When too many pictures are in hand it answers 429 at once; at SIGTERM it answers what it
has taken and ends.
"""

import argparse
from pathlib import Path

from capstan.predict.server.config import ServerLimits
from capstan.train.search import add_flags, given


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--model", type=Path, required=True, help="the folder `saved` that `capstan train` wrote"
    )
    parser.add_argument(
        "--weights",
        help="the extractor's weights, as for `capstan featurize`; by default those that the "
        "model was trained with, if their name says where they are",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve on; by default this machine alone can reach it, 0.0.0.0 is for all",
    )
    parser.add_argument(
        "--port", type=int, default=8080, metavar="N", help="port to serve on; 0 is any free one"
    )
    ServerLimits.configure(parser)
    add_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    limits, search = ServerLimits.from_arguments(arguments), given(arguments)

    from capstan.predict.captions import PredictSettings
    from capstan.predict.server.run import serve

    settings = PredictSettings(arguments.model, arguments.weights, limits.max_batch, None, search)
    serve(settings, limits, arguments.host, arguments.port)
