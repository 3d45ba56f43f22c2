from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.errors import DataError
from capstan.files import sha256_file
from capstan.train.features import RowReader, open_arrays

SIZES = (1, 7, 40)  # rows; some vectors begin in one page and end in the next


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("arrays")
    for rows in (0, *SIZES):
        vectors = np.random.default_rng(rows).random((rows, 2048)).astype(np.float16)
        np.save(folder / f"{rows}.npy", vectors)
    return [folder / f"{rows}.npy" for rows in (0, *SIZES)]


@given(st.data())
def test_rows_at_random(files: list[Path], data: st.DataObject) -> None:
    array = st.integers(1, len(SIZES))
    place = array.flatmap(lambda i: st.tuples(st.just(i), st.integers(0, SIZES[i - 1] - 1)))
    places = np.array(data.draw(st.lists(place, max_size=60)), np.int32).reshape(-1, 2)
    mapped = open_arrays(files, [None] * len(files))
    expected = [np.load(files[array])[row] for array, row in places]
    vectors = RowReader(mapped)(places[:, 0], places[:, 1])
    assert vectors.dtype == np.float16
    assert np.array_equal(vectors, np.array(expected).reshape(-1, 2048))
    in_memory = RowReader([np.array(array) for array in mapped])
    assert np.array_equal(vectors, in_memory(places[:, 0], places[:, 1]))


def test_hashes_are_checked_where_given(files: list[Path]) -> None:
    hashes = [sha256_file(path) for path in files]
    assert [len(array) for array in open_arrays(files, hashes)] == [0, *SIZES]
    with pytest.raises(DataError, match=r"7\.npy: damaged"):
        open_arrays(files, [*hashes[:2], "0" * 64, None])
    with pytest.raises(DataError, match=r"gone\.npy: missing"):
        open_arrays([files[0].with_name("gone.npy")], [None])
