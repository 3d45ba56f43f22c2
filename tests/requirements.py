"""What setup.cfg asks for."""

import configparser

from packaging.requirements import Requirement

from tests.paths import ROOT


def requirements(extra: str | None = None) -> list[Requirement]:
    """Return what Capstan needs with an extra, the extras that it names followed."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"]
    if extra is not None:
        lines += config["options.extras_require"][extra]
    found = []
    for wanted in map(Requirement, filter(None, lines.split("\n"))):
        if wanted.name == "capstan-captions":
            found += [needed for inner in wanted.extras for needed in requirements(inner)]
        else:
            found.append(wanted)
    return found
