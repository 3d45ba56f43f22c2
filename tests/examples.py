"""How many examples hypothesis tries of what is dear: so many for each hundred of others."""

from typing import Any

from hypothesis import settings


def examples(of_hundred: int, **more: Any) -> settings:
    """Settings for a test, under the profile that `tests/conftest.py` chose."""
    return settings(max_examples=max(1, settings().max_examples * of_hundred // 100), **more)
