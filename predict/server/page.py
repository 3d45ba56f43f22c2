"""The page at `/`, where pictures are dropped."""

from pathlib import Path

from capstan.http import page
from capstan.predict.server.config import Limits


def handler(limits: Limits) -> page.Handler:
    """What answers with the page."""
    values = {"max_bytes": limits.max_bytes, "can_explain": limits.explanations > 0}
    return page.handler(Path(__file__).parent, values=values)
