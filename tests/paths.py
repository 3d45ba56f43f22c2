"""Where tests find the checkout's files, and the real data that lives outside the repository."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIPELINES = ROOT / "deploy" / "pipelines"
SHARED_DATA = Path(os.environ.get("CAPSTAN_SHARED_DATA", ROOT.parent / "shared" / "data"))
