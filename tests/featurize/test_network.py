"""The folded network beside what it was folded from, and its arithmetics beside each other."""

import logging
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from capstan.errors import CapstanError, SettingError
from capstan.featurize import memory, torchvision, weights
from capstan.featurize.extractor import ResNetExtractor
from capstan.featurize.network import STAGES, fold, forward
from tests.networks import each_network_once, torchvision_state

__all__ = ["each_network_once"]
pytestmark = pytest.mark.usefixtures("each_network_once")

SIZE = 64
PICTURES = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)


def cosines(some: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosine similarity of each row with the same row of the other."""
    some, others = (np.asarray(array, np.float64) for array in (some, others))
    lengths = np.linalg.norm(some, axis=1) * np.linalg.norm(others, axis=1)
    return np.asarray((some * others).sum(axis=1) / lengths)


@pytest.fixture(scope="module")
def reference() -> NDArray[np.float32]:
    """Features in float32."""
    return ResNetExtractor("random:1", SIZE, 4, "float32").extract(PICTURES).astype(np.float32)


def test_folded_is_keras_own(reference: NDArray[np.float32]) -> None:
    model, _ = weights.load_resnet50("random:1", SIZE)
    pixels = keras.applications.resnet50.preprocess_input(PICTURES.astype(np.float32))
    expected = model(pixels, training=False).numpy()
    np.testing.assert_allclose(reference, expected, rtol=2e-3, atol=2e-3)  # float16 has 11 bits


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino"])
def test_bfloat16_is_near(runtime: str, reference: NDArray[np.float32]) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    features = ResNetExtractor("random:1", SIZE, 4, "bfloat16", runtime).extract(PICTURES)
    assert not np.array_equal(features, reference)
    assert cosines(features, reference).min() > 0.999


def test_openvino_calculates_the_same(reference: NDArray[np.float32]) -> None:
    pytest.importorskip("openvino")
    features = ResNetExtractor("random:1", SIZE, 4, "float32", "openvino").extract(PICTURES)
    np.testing.assert_allclose(features, reference, rtol=2e-3, atol=2e-3)


@given(
    arrays.arrays(np.float32, (4, 3), elements=st.floats(-2, 2, width=32)),
    st.floats(1e-3, 4),
)
def test_folding_is_the_batch_norm(norm: NDArray[np.float32], variance: float) -> None:
    gamma, beta, mean, _ = norm
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(1, 1, 5, 3)).astype(np.float32)
    bias = generator.normal(size=3).astype(np.float32)
    inputs = generator.normal(size=(7, 5))
    raw = inputs @ kernel[0, 0] + bias
    expected = (raw - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    folded = fold(kernel, bias, (gamma, beta, mean, np.full(3, variance)), 1e-5)
    np.testing.assert_allclose(inputs @ folded.kernel[0, 0] + folded.bias, expected, atol=1e-3)


# PyTorch's


def as_torch_does(state: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """The pictures' features by torchvision's own formulas, batch-norm by batch-norm."""

    def convolve(x: tf.Tensor, weight: str, norm: str, stride: int = 1) -> tf.Tensor:
        kernel = state[f"{weight}.weight"].transpose(2, 3, 1, 0)
        margin = len(kernel) // 2
        padded = tf.pad(x, [[0, 0], [margin, margin], [margin, margin], [0, 0]])
        x = tf.nn.conv2d(padded, kernel, stride, "VALID")
        gamma, beta, mean, variance = (state[f"{norm}.{name}"] for name in torchvision.NORM)
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-5)

    x = (PICTURES / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = tf.nn.relu(convolve(tf.constant(x, tf.float32), "conv1", "bn1", 2))
    x = tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
    for layer, blocks in enumerate(STAGES.values(), 1):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if block == 0 and layer > 1 else 1
            y = tf.nn.relu(convolve(x, f"{at}.conv1", f"{at}.bn1"))
            y = tf.nn.relu(convolve(y, f"{at}.conv2", f"{at}.bn2", stride))
            y = convolve(y, f"{at}.conv3", f"{at}.bn3")
            if block == 0:
                x = convolve(x, f"{at}.downsample.0", f"{at}.downsample.1", stride)
            x = tf.nn.relu(x + y)
    features: NDArray[np.float32] = tf.reduce_mean(x, [1, 2]).numpy()
    return features


@pytest.fixture(scope="module")
def state() -> dict[str, NDArray[np.float32]]:
    return torchvision_state()


def test_weights_of_torchvision(state: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    path = tmp_path / "resnet50.npz"
    np.savez(path, **state)  # type: ignore[arg-type]
    loaded = weights.load_weights(str(path), SIZE)
    assert loaded.identity.name == "resnet50v1.5-avg"
    assert loaded.identity.preprocessing == "torch-center-crop"
    features = forward(loaded.network, tf.constant(PICTURES), tf.float32).numpy()
    np.testing.assert_allclose(features, as_torch_does(state), rtol=1e-3, atol=1e-3)
    state = state | {"layer4.2.bn3.bias": state["layer4.2.bn3.bias"] + 1}
    np.savez(path, **state)  # type: ignore[arg-type]
    other = weights.load_weights(str(path), SIZE)
    assert other.identity.weights_sha256 != loaded.identity.weights_sha256
    assert not other.identity.same_features(loaded.identity)


def test_files_that_are_not_torchvisions(
    state: dict[str, NDArray[np.float32]], tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK nothing")
    with pytest.raises(SettingError, match=r"a.npz: cannot be read as .npz"):
        weights.load_weights(str(path), SIZE)
    np.savez(path, **{name: state[name] for name in state if "layer3.5.bn2" not in name})  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"a.npz: .* has no layer3.5.bn2.weight"):
        weights.load_weights(str(path), SIZE)


# Memory


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[ResNetExtractor]:
    """An extractor on a device whose memory holds no batch of more than two pictures."""
    extractor = ResNetExtractor("random:1", SIZE, 4, "float32")
    compile_any = extractor._compile

    def compile_small() -> object:
        if extractor.batch_size <= 2:
            return compile_any()

        def exhausted(_: object) -> None:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

        return exhausted

    monkeypatch.setattr(extractor, "_compile", compile_small)
    monkeypatch.setattr(extractor, "_calculate", compile_small())
    yield extractor


def test_out_of_memory_halves_the_batch(
    narrow: ResNetExtractor, reference: NDArray[np.float32], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    # Other shapes of a batch may be other kernels: the last bit of float16 may differ.
    np.testing.assert_allclose(narrow.extract(PICTURES), reference, rtol=2e-3, atol=2e-3)
    assert narrow.batch_size == 2
    assert [record.getMessage() for record in caplog.records] == [
        "not enough memory for --batch-size 4: going on with 2"
    ]


def test_a_batch_larger_than_memory_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "PROC", tmp_path)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available() is None
    (tmp_path / "meminfo").write_text("MemTotal: 99999 kB\nMemAvailable:     9999 kB\n")
    assert memory.available() == 9999 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available() == 9999 * 1024
    (tmp_path / "memory.max").write_text("7000000\n")
    (tmp_path / "memory.current").write_text("5000000\n")
    (tmp_path / "memory.stat").write_text("anon 2500000\ninactive_file 2000000\n")
    assert memory.available() == 4_000_000
    extractor = ResNetExtractor("random:1", SIZE, 12, "float32")  # 3.4 MB for each three
    assert extractor.batch_size == 3
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == [
        "going on with 6",
        "going on with 3",
    ]


def test_out_of_memory_for_one_picture(
    narrow: ResNetExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(narrow, "_compile", lambda: no_memory)
    with pytest.raises(CapstanError, match="not enough memory for a single picture of 64 pixels"):
        narrow.extract(PICTURES)
