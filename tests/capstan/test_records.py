"""Keys of rows."""

import re

from hypothesis import given
from hypothesis import strategies as st

from capstan.records import row_key


def test_key_names_chunk_and_line() -> None:
    assert row_key("cc.tsv/0000000000000000", 17) == "cc_tsv-0000000000000000-000017"


@given(st.text(min_size=1), st.integers(0, 10**9))
def test_keys_suit_webdataset(chunk: str, index: int) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]+", row_key(chunk, index))
