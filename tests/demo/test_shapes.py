"""The demo's pictures: the same for the same seed, and what their captions say."""

import io
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from capstan.demo.backbone import PretrainSettings, pretrain
from capstan.demo.shapes import COLOURS, RELATIONS, Scene, Shape, caption, draw, encode, scenes
from capstan.errors import SettingError

SAMPLE = scenes(200, seed=7)
TINY = PretrainSettings(image_size=32, batch_size=8)


def test_same_seed_same_pictures() -> None:
    again = scenes(200, seed=7)
    assert again == SAMPLE
    assert [encode(scene) for scene in again[:5]] == [encode(scene) for scene in SAMPLE[:5]]


def test_longer_list_starts_with_the_shorter() -> None:
    assert scenes(20, seed=7) == SAMPLE[:20]


def test_other_seed_other_scenes() -> None:
    assert not set(scenes(200, seed=8)) & set(SAMPLE)


def test_caption_reads_as_english() -> None:
    scene = Scene(
        first=Shape("large", "red", "circle", 0.5, 0.3, 0.2, COLOURS["red"]),
        relation="above",
        second=Shape("small", "blue", "square", 0.5, 0.8, 0.1, COLOURS["blue"]),
        width=64,
        height=80,
        background=(255, 255, 255),
        file_format="PNG",
    )
    assert caption(scene) == "a large red circle above a small blue square"


def test_captions_are_many_and_spread() -> None:
    captions = {caption(scene) for scene in scenes(3000, seed=1)}
    assert len(captions) > 900  # of 2 * 24 * 24 possible: no single guess is often right


def test_every_shape_lies_apart_inside_the_central_square() -> None:
    for scene in SAMPLE:
        for shape in (scene.first, scene.second):
            assert shape.radius <= min(shape.x, shape.y, 1 - shape.x, 1 - shape.y)
        apart = _second_minus_first(scene, scene.relation)
        assert apart >= scene.first.radius + scene.second.radius


def test_relation_is_where_the_shapes_are() -> None:
    for scene in SAMPLE:
        [other] = set(RELATIONS) - {scene.relation}
        assert _second_minus_first(scene, scene.relation) > 0.4
        assert abs(_second_minus_first(scene, other)) < 0.2


def test_drawn_colours_are_the_captions() -> None:
    for scene in SAMPLE:
        for shape in (scene.first, scene.second):
            assert _nearest_colour(_pixel_at(scene, shape)) == shape.colour


def test_drawn_areas_tell_small_from_large() -> None:
    for scene in SAMPLE:
        if scene.first.paint != scene.second.paint and scene.first.kind == scene.second.kind:
            first, second = (_area(scene, shape) for shape in (scene.first, scene.second))
            if scene.first.size != scene.second.size:
                assert (first > 1.8 * second) == (scene.first.size == "large")


def test_files_vary_in_format_and_size() -> None:
    opened = [Image.open(io.BytesIO(encode(scene))) for scene in SAMPLE[:40]]
    assert {picture.format for picture in opened} == {"JPEG", "PNG"}
    assert len({picture.size for picture in opened}) > 30
    assert all(max(picture.size) <= 1.25 * min(picture.size) for picture in opened)


def test_pretraining_saves_a_backbone_that_loads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "new" / "backbone.weights.h5"
    with caplog.at_level("INFO", logger="capstan.demo.backbone"):
        pretrain(SAMPLE[:32], path, PretrainSettings(image_size=32))
    assert "step 1 of 1" in caplog.text
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    backbone = keras.applications.ResNet50(
        include_top=False, pooling="avg", weights=None, input_shape=(32, 32, 3)
    )
    before = backbone.get_layer("conv1_conv").kernel.numpy()
    backbone.load_weights(path)
    assert not np.array_equal(before, backbone.get_layer("conv1_conv").kernel.numpy())
    features = np.asarray(backbone(np.zeros((1, 32, 32, 3), np.float32)))
    assert features.shape == (1, 2048)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("name", ["backbone.h5", "backbone.keras"])
def test_wrong_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"\.weights\.h5"):
        pretrain(SAMPLE[:16], tmp_path / name, TINY)


def test_too_few_scenes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="batch of 8"):
        pretrain(SAMPLE[:7], tmp_path / "backbone.weights.h5", TINY)


@pytest.mark.parametrize("wrong", [{"image_size": 31}, {"batch_size": 1}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(SettingError):
        PretrainSettings(**wrong)


def _second_minus_first(scene: Scene, relation: str) -> float:
    """How far the second shape's centre is below (above) or right of (left of) the first's."""
    if relation == "above":
        return scene.second.y - scene.first.y
    return scene.second.x - scene.first.x


def _pixel_at(scene: Scene, shape: Shape) -> NDArray[np.uint8]:
    side = min(scene.width, scene.height)
    column = int((scene.width - side) / 2 + shape.x * side)
    row = int((scene.height - side) / 2 + shape.y * side)
    pixel: NDArray[np.uint8] = np.asarray(draw(scene))[row, column]
    return pixel


def _nearest_colour(pixel: NDArray[np.uint8]) -> str:
    distances = {
        name: float(np.linalg.norm(pixel.astype(float) - rgb)) for name, rgb in COLOURS.items()
    }
    return min(distances, key=distances.__getitem__)


def _area(scene: Scene, shape: Shape) -> int:
    return int((np.asarray(draw(scene)) == shape.paint).all(axis=-1).sum())
