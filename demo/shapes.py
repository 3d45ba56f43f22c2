"""Pictures of two coloured shapes, and the one caption that is right for each.

A scene is drawn from its own data alone, so the same seed gives the same scenes,
pictures and captions. What a caption names is made easy to see: sizes differ by a
factor of two, colours are far apart, and the shapes stand clearly side by side or
one over the other. What it does not name (background, exact place, size and paint,
the picture's own width, height and file format) varies.

The caption names the upper or the left shape first, so each scene has one caption.
"""

import io
import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]
Point = tuple[float, float]

SIZES = {"small": 0.09, "large": 0.18}  # half the extent, in parts of the shorter side
COLOURS: dict[str, Rgb] = {
    "red": (215, 35, 35),
    "green": (35, 165, 55),
    "blue": (40, 75, 220),
    "yellow": (240, 205, 30),
}
KINDS = ("circle", "square", "triangle")
RELATIONS = ("above", "left of")
FORMATS = ("JPEG", "JPEG", "PNG")  # two in three are JPEG

_SHORTER = (80, 144)  # the shorter side, in pixels
_STRETCH = 1.2  # longer side over shorter side, at most
_SMOOTH = 4  # drawn this many times larger, then shrunk, for soft edges


@dataclass(frozen=True)
class Shape:
    """One shape: the words for it, and its place and half extent in the unit square."""

    size: str
    colour: str
    kind: str
    x: float
    y: float
    radius: float
    paint: Rgb

    @property
    def words(self) -> str:
        """The shape as the caption calls it."""
        return f"{self.size} {self.colour} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """Two shapes, how the first stands to the second, the canvas and its file's format."""

    first: Shape
    relation: str
    second: Shape
    width: int
    height: int
    background: Rgb
    file_format: str


def caption(scene: Scene) -> str:
    """The caption, such as `a large red circle above a small blue square`."""
    return f"a {scene.first.words} {scene.relation} a {scene.second.words}"


def scenes(count: int, seed: int) -> list[Scene]:
    """`count` scenes, the same ones for the same seed; a longer list starts with a shorter one."""
    rng = random.Random(seed)
    return [_scene(rng) for _ in range(count)]


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene; both shapes lie in its central square."""
    side = min(scene.width, scene.height)
    left, top = (scene.width - side) / 2, (scene.height - side) / 2
    extent = (scene.width * _SMOOTH, scene.height * _SMOOTH)
    canvas = Image.new("RGB", extent, color=scene.background)
    pen = ImageDraw.Draw(canvas)
    for shape in (scene.first, scene.second):
        centre = ((left + shape.x * side) * _SMOOTH, (top + shape.y * side) * _SMOOTH)
        outline = _outline(shape.kind, centre, shape.radius * side * _SMOOTH)
        pen.polygon(outline, fill=shape.paint)
    return canvas.reduce(_SMOOTH)


def encode(scene: Scene) -> bytes:
    """The picture of a scene as a file."""
    buffer = io.BytesIO()
    draw(scene).save(buffer, format=scene.file_format, quality=92)
    return buffer.getvalue()


def _scene(rng: random.Random) -> Scene:
    shorter = rng.randint(*_SHORTER)
    longer = round(shorter * rng.uniform(1.0, _STRETCH))
    width, height = rng.choice([(shorter, longer), (longer, shorter)])
    relation = rng.choice(RELATIONS)
    return Scene(
        first=_shape(rng, relation, 0.275),
        relation=relation,
        second=_shape(rng, relation, 0.725),
        width=width,
        height=height,
        background=_background(rng),
        file_format=rng.choice(FORMATS),
    )


def _shape(rng: random.Random, relation: str, along: float) -> Shape:
    """A shape about `along` on the relation's axis and about the middle of the other."""
    along, across = along + rng.uniform(-0.025, 0.025), 0.5 + rng.uniform(-0.08, 0.08)
    x, y = (across, along) if relation == "above" else (along, across)
    size, colour = rng.choice(list(SIZES)), rng.choice(list(COLOURS))
    radius = SIZES[size] * rng.uniform(0.94, 1.06)
    red, green, blue = (channel + rng.randint(-15, 15) for channel in COLOURS[colour])
    return Shape(size, colour, rng.choice(KINDS), x, y, radius, (red, green, blue))


def _background(rng: random.Random) -> Rgb:
    """A light grey with a slight tint."""
    grey = rng.randint(205, 249)
    red, green, blue = (grey + rng.randint(-6, 6) for _ in range(3))
    return red, green, blue


def _outline(kind: str, centre: Point, radius: float) -> list[Point]:
    """The corners of a shape; a circle is a polygon with many."""
    x, y = centre
    if kind == "square":
        return [
            (x - radius, y - radius),
            (x + radius, y - radius),
            (x + radius, y + radius),
            (x - radius, y + radius),
        ]
    if kind == "triangle":
        return [(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)]
    turns = [2 * math.pi * step / 48 for step in range(48)]
    return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
