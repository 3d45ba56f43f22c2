"""Values put into a template, and the page written in one piece.

Pages carry all they show and load nothing. `base.html` is their frame; it begins with the style
that all of Capstan's pages have.
"""

import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from capstan import __version__, http
from capstan.errors import SettingError
from capstan.files import atomic_write, output_directory
from capstan.progress import duration

TEMPLATES = Path(__file__).parent
SHELL = Path(http.__file__).parent  # shell.css
LIBRARIES = ("numpy", "pyarrow", "pillow", "aiohttp", "tensorflow", "keras")
LONGEST_LINK = 2000  # characters; browsers and servers agree on little more
LONGEST_TEXT = 300


def check_output(output: Path) -> None:
    """SettingError when no page can be written to `output`."""
    if output.is_dir():
        raise SettingError(f"{output}: is a folder; give a file name with --output")
    output_directory(output.parent, "--output")


def write_page(
    template: str, values: Mapping[str, Any], output: Path, folder: Path = TEMPLATES
) -> None:
    """Write a template of a folder, filled with values and the versions in use, to `output`."""
    page = _environment(folder).get_template(template)
    html = page.render({**values, "versions": _versions()})
    with atomic_write(output) as file:
        file.write(html.encode(errors="replace"))  # hostile captions may hold half characters


def _versions() -> dict[str, str]:
    versions = {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "capstan": __version__,
    }
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES, SHELL]),
        autoescape=True,
        undefined=StrictUndefined,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda value: f"{value:,.0f}",
        "rate": _rate,
        "percent": _percent,
        "duration": lambda seconds: duration(seconds) if seconds >= 1 else f"{seconds:.1f}s",
        "latency": _latency,
        "moment": _moment,
        "link": safe_link,
        "short": shorten,
        "size": _size,
    }
    return environment


def safe_link(url: str) -> str | None:
    """The address when it may be a link: http or https, and not too long; else None."""
    web = url.lower().startswith(("http://", "https://"))
    return url if web and len(url) <= LONGEST_LINK else None


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """Cut a text that would spoil the page."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _latency(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    return f"{1000 * seconds:,.0f} ms" if seconds < 0.9995 else f"{seconds:,.1f} s"


def _percent(part: float) -> str:
    """A part of one; never rounded up to all or down to nothing."""
    percent = 100 * part
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds).astimezone()
    return f"{moment.day} {moment:%B %Y, %H:%M %Z}"


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
