"""From a list of (caption, url) to a trained captioner.

What all rooms share stands here: records, the formats of shards, the command, progress. The rooms
beside it (`ingest`, `featurize`, ...) are reached by symbolic links, so that they have one name.
"""

from pathlib import Path

__version__ = "0.1.0"

if Path(__file__).with_name("ingest").is_file():  # git writes links as files where it may not link
    raise SystemExit(
        f"capstan: {Path(__file__).parent} has text files in place of its symbolic links; "
        "run `git config core.symlinks true` and `git checkout HEAD -- capstan` in that checkout "
        "(on Windows, turn on Developer Mode before)"
    )
