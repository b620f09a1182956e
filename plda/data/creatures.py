"""Drawn scenes ("creatures"): the fault that PLDA addresses, without a download and with every pixel known.

Each scene shows one to three creatures on clutter. A creature is a *telling part* (the head: a shape and
colours of its class only) and a *body* (torso, legs, tail and texture out of one pool for all classes) that
says little. A classifier can therefore solve the tags from heads alone, and its activation maps miss bodies.
How much the body says is a knob, `body_cue`: it acts through the body's hue and nothing else. Clutter uses the same
hues, textures and sometimes the heads' vivid colours, so no colour gives the mask away.

`draw(seed, number)` depends on its arguments only. Every object and the clutter have random streams of
their own, read in a fixed order, so that other values of `body_cue` and `part_size` give the same scene otherwise.

Visibility rule: of each creature at least `MIN_HEAD` of the telling part and `MIN_BODY` of the body stay visible, and
`MIN_PIXELS` of the head; after `TRIES` places that break the rule for it, a creature is left out (the front one
is then put in the middle), so that every tag can be seen. Masks have no void outline: they are sampled at pixel centres.

Frame of a creature: complex numbers, x to the right, y *down* as in images; torso about 0.8 long, facing right.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Outline = NDArray[np.complex128]  # corners of a polygon
Colour = tuple[int, int, int]
Shape = tuple[Outline, Colour]

CLASSES = ("background", "bird", "cat", "mouse", "bull", "rabbit", "snail")
KINDS = len(CLASSES) - 1
TELLING, BODY = 1, 2  # values of Scene.parts

SHARPNESS = 3  # drawn 3x larger; odd, so that every pixel has a centre sample for the masks
OBJECTS = (0.4, 0.35, 0.25)  # chance of 1, 2, 3 objects
REPEAT = 0.15  # chance that a further object has the class of the first
LENGTH = (0.4, 0.7)  # of the side; smaller ones have heads of a few pixels only
MIN_HEAD, MIN_BODY, MIN_PIXELS = 0.7, 0.35, 12
TRIES = 8
CLUTTER = 34  # things in the background
HEAD_ON_TORSO = 0.3  # measured share of the head that covers the torso


@dataclass(frozen=True)
class Scene:
    """`image` (S, S, 3) RGB; `mask` (S, S) class ids, 0 background; `parts` (S, S) 0, TELLING or BODY,
    above 0 exactly where `mask` is; `tags` the classes in `mask`, in order of id."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class _Creature:
    label: int
    body: list[Shape]
    texture: list[Shape]  # clipped to the body
    head: list[Shape]
    areas: tuple[
        float, float
    ]  # of the telling part and of the rest of the body, unhidden, in its own frame


def draw(
    seed: int, number: int, *, size: int = 128, body_cue: float = 0.88, part_size: float = 0.18
) -> Scene:
    """Draw scene `number` of the data set `seed`.

    body_cue: accuracy of the best guess of the class from the body's hue alone; up to 1/KINDS it says nothing.
    part_size: share of the creature's area, unhidden, that the telling part takes (nominal: within a few points).
    Raises ValueError, naming the argument, outside seed, number >= 0, size >= 32, body_cue in [0, 1], part_size in
    [0.05, 0.6].
    """
    for name, value, low, high in (
        ("seed", seed, 0, np.inf), ("number", number, 0, np.inf), ("size", size, 32, np.inf),
        ("body_cue", body_cue, 0, 1), ("part_size", part_size, 0.05, 0.6),
    ):  # fmt: skip
        if not low <= value <= high:
            raise ValueError(f"{name} must be in [{low}, {high}], got {value}")
    rng = np.random.default_rng([seed, number])
    scene_rng, clutter_rng, grain_rng, *object_rngs = rng.spawn(3 + len(OBJECTS))
    canvas = _clutter(clutter_rng, size)
    objects = []
    owner = np.zeros((size, size), np.uint8)  # 2k + part for the k-th creature kept, 0 elsewhere
    for k, label in enumerate(_labels(scene_rng)):
        creature = _creature(object_rngs[k], label, body_cue, part_size)
        placed = _place(object_rngs[k], creature, owner, front=k == 0)
        if placed is not None:
            objects.append(placed)
            codes = _parts(placed, size)
            free = (owner == 0) & (codes > 0)
            owner[free] = 2 * len(objects) - 2 + codes[free]
    for creature in reversed(objects):  # the first is in front
        _paint(canvas, creature)
    labels = np.array([0] + [c.label for c in objects for _ in (TELLING, BODY)], np.uint8)
    mask = labels[owner]
    parts = np.where(owner > 0, 2 - owner % 2, 0).astype(np.uint8)
    image = _light(grain_rng, np.asarray(canvas.reduce(SHARPNESS)), objects, owner)
    return Scene(image, mask, parts, tuple(CLASSES[c] for c in np.unique(mask) if c))


def body_hue(label: int, cue: float, lot: float, place: float) -> float:
    """Hue in [0, 1) of the body of class `label` (1..KINDS), from two uniform draws `lot` and `place`.

    With probability p = (cue - 1/C) / (1 - 1/C) it lies in the class's own arc [(label-1)/C, label/C), else
    anywhere; the best guess, the arc that holds the hue, is then right with probability p + (1 - p)/C = cue.
    """
    chance = 1 / KINDS
    certain = max(0.0, (cue - chance) / (1 - chance))
    return (label - 1 + place) * chance if lot < certain else place


def _labels(rng: np.random.Generator) -> list[int]:
    """Classes of the objects, front to back."""
    count = 1 + int(rng.choice(len(OBJECTS), p=OBJECTS))
    labels = 1 + rng.permutation(KINDS)[: len(OBJECTS)]
    labels[1:][rng.random(len(OBJECTS) - 1) < REPEAT] = labels[0]
    return [int(label) for label in labels[:count]]


# --- shapes -------------------------------------------------------------------------------------


def _oval(x: float, y: float, rx: float, ry: float, corners: int = 24) -> Outline:
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return x + rx * np.cos(turn) + 1j * (y + ry * np.sin(turn))


def _corners(*xy: complex) -> Outline:
    return np.array(xy, np.complex128)


def _limb(path: Outline, start: float, end: float) -> Outline:
    """A band along `path` whose half width goes from `start` to `end`."""
    along = np.gradient(path)
    side = 1j * along / np.abs(along) * np.linspace(start, end, len(path))
    return np.concatenate([path + side, (path - side)[::-1]])


def _both(outline: Outline, colour: Colour) -> list[Shape]:
    return [(outline, colour), (-outline.conj(), colour)]


def _colour(hue: float, saturation: float, value: float) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))
    return round(255 * r), round(255 * g), round(255 * b)


BLACK, WHITE, PINK, CREAM = (25, 20, 25), (250, 248, 240), (255, 130, 170), (250, 235, 190)


@cache
def _head(label: int) -> list[Shape]:
    """The telling part around a face of radius 1, as seen from the front. The face is far in hue from the class's arc."""
    name = CLASSES[label]
    if name == "bird":  # crest and beak
        blue, yellow = (40, 90, 235), (255, 205, 20)
        spikes = [
            _corners(-0.35 + x - 0.6j, 1.3 * x - 1.75j + abs(x) * 0.5j, 0.35 + x - 0.6j)
            for x in (-0.55, 0.55, 0)
        ]
        return [
            *((s, (235, 50, 60)) for s in spikes), (_oval(0, 0, 1, 1), blue),
            *_both(_oval(0.42, -0.15, 0.4, 0.44), WHITE), *_both(_oval(0.36, -0.1, 0.18, 0.2), BLACK),
            (_corners(-0.5 + 0.25j, 0.1j, 0.5 + 0.25j, 1.25j), yellow),
            (_corners(-0.42 + 0.38j, 0.42 + 0.38j, 0.36 + 0.5j, -0.36 + 0.5j), (190, 110, 0)),
        ]  # fmt: skip
    if name == "cat":  # pointed ears, striped forehead
        orange = (255, 140, 20)
        return [
            *_both(_corners(0.98 - 0.1j, 0.92 - 1.5j, 0.05 - 0.85j), orange),
            *_both(_corners(0.82 - 0.45j, 0.8 - 1.2j, 0.35 - 0.8j), PINK),
            (_oval(0, 0, 1.08, 0.95), orange),
            *((_corners(x - 0.13 - 0.95j, x + 0.13 - 0.95j, x - 0.35j), BLACK) for x in (-0.38, 0, 0.38)),
            *_both(_corners(1.1 + 0.05j, 1.1 + 0.3j, 0.6 + 0.25j), BLACK),
            *_both(_oval(0.42, -0.08, 0.23, 0.26), (150, 240, 60)), *_both(_oval(0.42, -0.08, 0.09, 0.25), BLACK),
            *_both(_oval(0.22, 0.5, 0.32, 0.27), WHITE), (_corners(-0.18 + 0.25j, 0.18 + 0.25j, 0.45j), (230, 70, 100)),
        ]  # fmt: skip
    if name == "mouse":  # large round ears, pointed snout
        violet = (150, 70, 215)
        return [
            *_both(_oval(0.98, -0.8, 0.78, 0.78), violet), *_both(_oval(0.98, -0.8, 0.5, 0.5), (255, 150, 205)),
            (_corners(-0.95, -0.6 - 0.75j, -0.8j, 0.6 - 0.75j, 0.95, 0.75 + 0.5j, 1.25j, -0.75 + 0.5j), violet),
            *_both(_oval(0.4, -0.1, 0.2, 0.22), BLACK), *_both(_oval(0.46, -0.17, 0.07, 0.08), WHITE),
            (_oval(0, 0.7, 0.48, 0.42), (235, 210, 250)), (_oval(0, 0.98, 0.24, 0.2), (255, 60, 120)),
        ]  # fmt: skip
    if name == "bull":  # horns, broad muzzle
        red = (200, 25, 40)
        horn = _corners(
            0.45 - 0.65j, 1.1 - 0.8j, 1.3 - 1.6j, 1.75 - 1.1j, 1.65 - 0.4j, 1.2 - 0.1j, 0.6 - 0.1j
        )
        return [
            *_both(horn, CREAM), (_corners(-0.9 - 0.7j, 0.9 - 0.7j, 0.8 + 0.9j, -0.8 + 0.9j), red),
            (_oval(0, -0.5, 0.95, 0.55), red), (_corners(-0.25 - 1j, 0.25 - 1j, 0.3j), WHITE),
            *_both(_oval(0.5, -0.15, 0.2, 0.2), WHITE), *_both(_oval(0.48, -0.12, 0.12, 0.12), BLACK),
            (_oval(0, 0.75, 0.95, 0.5), (255, 200, 180)), *_both(_oval(0.38, 0.68, 0.16, 0.2), BLACK),
        ]  # fmt: skip
    if name == "rabbit":  # long ears, red cheeks
        return [
            *_both(_oval(0.5, -1.45, 0.36, 1.0), WHITE), *_both(_oval(0.5, -1.45, 0.19, 0.75), (255, 70, 130)),
            (_oval(0, 0, 1.0, 0.92), WHITE), *_both(_oval(0.66, 0.3, 0.27, 0.24), (255, 100, 120)),
            *_both(_oval(0.38, -0.15, 0.19, 0.25), BLACK), *_both(_oval(0.43, -0.24, 0.07, 0.09), WHITE),
            (_corners(-0.2 + 0.18j, 0.2 + 0.18j, 0.42j), (255, 40, 90)),
            (_corners(-0.2 + 0.55j, 0.2 + 0.55j, 0.2 + 0.85j, -0.2 + 0.85j), CREAM),
        ]  # fmt: skip
    green, dark = (90, 220, 50), (10, 110, 60)  # snail: eyes on stalks, ringed face
    return [
        *_both(_corners(0.2 - 0.6j, 0.55 - 0.6j, 0.95 - 1.5j, 0.7 - 1.6j), green),
        *_both(_oval(0.85, -1.6, 0.42, 0.42), WHITE), *_both(_oval(0.82, -1.55, 0.2, 0.2), BLACK),
        (_oval(0, 0, 1.0, 1.0), green), (_oval(0, 0.02, 0.78, 0.78), dark), (_oval(0, 0.05, 0.58, 0.58), (190, 245, 80)),
        (_oval(0, 0.08, 0.36, 0.36), dark), (_oval(0, 0.1, 0.16, 0.16), (255, 230, 60)),
    ]  # fmt: skip


def _texture(rng: np.random.Generator, colour: Colour, reach: float) -> list[Shape]:
    """Stripes, spots, patches or nothing over the square [-reach, reach]², for bodies and clutter alike."""
    kind, slant = rng.integers(4), rng.uniform(-0.5, 0.5)
    x, y = rng.uniform(-reach, reach, (2, 16))
    extent = rng.uniform(0.5, 1.0, 16) * reach
    if kind == 0:
        width = rng.uniform(0.05, 0.1) * reach
        bars = np.linspace(-1.3, 1.3, 9) * reach
        bar = _corners(
            -width - 1.5j * reach, width - 1.5j * reach, width + 1.5j * reach, -width + 1.5j * reach
        )
        return [(b + bar * np.exp(1j * slant), colour) for b in bars]
    if kind == 1:
        return [(_oval(u, v, e * 0.13, e * 0.13, 12), colour) for u, v, e in zip(x, y, extent)]
    if kind == 2:
        return [(_oval(u, v, e * 0.4, e * 0.3), colour) for u, v, e in zip(x[:4], y[:4], extent)]
    return []


def _creature(rng: np.random.Generator, label: int, body_cue: float, part_size: float) -> _Creature:
    hue = body_hue(label, body_cue, *rng.random(2))
    saturation, value = rng.uniform(0.4, 0.65), rng.uniform(0.65, 0.9)
    coat, shadow = _colour(hue, saturation, value), _colour(hue, saturation, value * 0.8)
    mark = (
        _colour(hue, saturation * 1.2, value * 0.6)
        if rng.random() < 0.6
        else _colour(hue, 0.15, value * 1.25)
    )
    torso = _blob(rng, rng.uniform(0.34, 0.42), rng.uniform(0.2, 0.28))
    legs, tail = _legs(rng), _tail(rng)
    body = [(tail, shadow), *((leg, shadow) for leg in legs), (torso, coat)]
    texture = _texture(rng, mark, 0.45)
    neck = torso.real.max() * rng.uniform(0.85, 0.95) + 1j * torso.imag.min() * rng.uniform(
        0.5, 0.75
    )
    tilt = np.exp(1j * rng.uniform(-0.3, 0.3))
    whole = _area([s for s, _ in body]) / (1 - part_size * (1 - HEAD_ON_TORSO))
    scale = np.sqrt(part_size * whole / _head_area(label))
    fade = rng.uniform(0.85, 1.1)
    head = [(neck + scale * tilt * s, _tint(c, fade)) for s, c in _head(label)]
    return _Creature(label, body, texture, head, (part_size * whole, (1 - part_size) * whole))


def _tint(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255, round(c * factor)) for c in colour)
    return r, g, b


def _blob(rng: np.random.Generator, rx: float, ry: float) -> Outline:
    turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    wave = sum(
        a * np.cos(n * turn + p)
        for n, a, p in zip((2, 3, 5), rng.uniform(0, 0.07, 3), rng.uniform(0, 6.3, 3))
    )
    return (1 + wave) * (rx * np.cos(turn) + 1j * ry * np.sin(turn))


def _legs(rng: np.random.Generator) -> list[Outline]:
    long, bend = rng.uniform(0.25, 0.42), rng.uniform(-0.08, 0.08, 4)
    places = ((-0.27, -0.14, 0.1, 0.24), (-0.1, 0.12), (-0.25, -0.08, 0.08, 0.25))[rng.integers(3)]
    paths = [x + np.array([0, b + 0.5j * long, 1j * long]) for x, b in zip(places, bend)]
    return [_limb(p + 0.08j, 0.07, 0.045) for p in paths]


def _tail(rng: np.random.Generator) -> Outline:
    t = np.linspace(0, 1, 10)
    curl, long = rng.uniform(-2, 2), rng.uniform(0.2, 0.45)
    path = -0.3 - long * t * np.exp(1j * curl * t) - 0.05j
    return _limb(path, *((0.05, 0.02), (0.03, 0.08), (0.06, 0.06))[rng.integers(3)])


@cache
def _head_area(label: int) -> float:
    return _area([s / 4 for s, _ in _head(label)]) * 16


def _area(outlines: list[Outline]) -> float:
    """Area of the union, counted on a grid over [-1, 1]²."""
    cells = 96
    return (
        float(np.count_nonzero(_silhouette([(s + 1 + 1j) * cells / 2 for s in outlines], cells)))
        * (2 / cells) ** 2
    )


def _silhouette(outlines: list[Outline], side: int) -> Image.Image:
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    for outline in outlines:
        pen.polygon(_xy(outline), fill=255)
    return image


def _xy(outline: Outline) -> list[float]:
    return outline.view(np.float64).tolist()  # x, y, x, y, ...


# --- the scene ----------------------------------------------------------------------------------


def _place(
    rng: np.random.Generator, creature: _Creature, owner: NDArray[np.uint8], front: bool
) -> _Creature | None:
    """The creature in the frame of the canvas, at the first place that keeps the visibility rule, or None."""
    size = len(owner)
    length = LENGTH[0] * (LENGTH[1] / LENGTH[0]) ** rng.random()
    turn = np.exp(1j * rng.uniform(-0.5, 0.5))
    mirrored = rng.random() < 0.5
    head, body = (area * (length * size) ** 2 for area in creature.areas)  # in pixels
    for x, y in [*rng.uniform(0.1, 0.9, (TRIES, 2)), *([(0.5, 0.5)] if front else [])]:
        moved = _moved(creature, size * SHARPNESS, complex(x, y), length * turn, mirrored)
        seen = np.bincount(_parts(moved, size)[owner == 0], minlength=3)
        enough = seen[TELLING] >= max(MIN_PIXELS, MIN_HEAD * head) and seen[BODY] >= MIN_BODY * body
        if enough or (x, y) == (0.5, 0.5):
            return moved
    return None


def _moved(creature: _Creature, side: int, at: complex, turn: complex, mirrored: bool) -> _Creature:
    def move(shapes: list[Shape]) -> list[Shape]:
        return [(side * (at + turn * (-s.conj() if mirrored else s)), c) for s, c in shapes]

    body, texture, head = move(creature.body), move(creature.texture), move(creature.head)
    return replace(creature, body=body, texture=texture, head=head)


def _parts(creature: _Creature, size: int) -> NDArray[np.uint8]:
    """(S, S) TELLING, BODY or 0 at the centres of the pixels."""
    image = Image.new("L", (size * SHARPNESS, size * SHARPNESS))
    pen = ImageDraw.Draw(image)
    for shapes, part in ((creature.body, BODY), (creature.head, TELLING)):
        for outline, _ in shapes:
            pen.polygon(_xy(outline), fill=part)
    middle = SHARPNESS // 2
    return np.asarray(image)[middle::SHARPNESS, middle::SHARPNESS]


def _paint(canvas: Image.Image, creature: _Creature) -> None:
    _stamp(canvas, creature.body, creature.texture, creature.head)


def _stamp(canvas: Image.Image, body: list[Shape], texture: list[Shape], head: list[Shape]) -> None:
    """Paint through the silhouette of `body` and `head`, so that texture and edges stay inside."""
    shapes = [outline for outline, _ in body + head]
    points = np.concatenate(shapes)
    corner = complex(np.floor(points.real.min()), np.floor(points.imag.min()))
    width, height = int(np.ptp(points.real)) + 3, int(np.ptp(points.imag)) + 3
    left, top = int(corner.real), int(corner.imag)
    layer = Image.new("RGB", (width, height))
    stencil = Image.new("L", (width, height))
    pen, cutter = ImageDraw.Draw(layer), ImageDraw.Draw(stencil)
    torso, coat = body[-1]
    for outline, colour in body + texture:
        pen.polygon(_xy(outline - corner), fill=colour)
    pen.line(_xy(np.append(torso, torso[0]) - corner), fill=_tint(coat, 0.6), width=SHARPNESS)
    for outline, colour in head:
        pen.polygon(_xy(outline - corner), fill=colour)
    for outline in shapes:
        cutter.polygon(_xy(outline - corner), fill=255)
    canvas.paste(layer, (left, top), stencil)


def _clutter(rng: np.random.Generator, size: int) -> Image.Image:
    """Ground of soft colours, then patches, stones, bushes, grass and flowers, far to near."""
    side = size * SHARPNESS
    palette = [
        _colour(rng.random(), rng.uniform(0.1, 0.4), rng.uniform(0.4, 0.85)) for _ in range(4)
    ]
    ground = np.array(palette, np.uint8)[rng.integers(len(palette), size=(6, 6))]
    canvas = Image.fromarray(ground).resize((side, side), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    for _ in range(CLUTTER):
        thing = (_stone, _stone, _grass, _grass, _flower)[rng.integers(5)]
        at = complex(*rng.uniform(0, 1, 2))
        thing(rng, canvas, pen, lambda s, at=at: side * (s + at))
    return canvas


def _light(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    objects: list[_Creature],
    owner: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Shade every part as if round, lit from one side; then uneven light, tone of the light and grain."""
    size = len(owner)
    y, x = np.mgrid[:size, :size] / size
    side = np.exp(1j * rng.uniform(-2.6, -0.5))  # from above
    shade = 1 + rng.uniform(-0.25, 0.25) * (x - 0.5) + rng.uniform(-0.25, 0.25) * (y - 0.5)
    for k, creature in enumerate(objects):
        for part, shapes in ((TELLING, creature.head), (BODY, creature.body[-1:])):
            points = np.concatenate([s for s, _ in shapes]) / (size * SHARPNESS)
            reach = np.abs(points - points.mean()).max()
            toward = (
                (x - points.mean().real) * side.real + (y - points.mean().imag) * side.imag
            ) / reach
            shade = np.where(
                owner == 2 * k + part, shade * (1 + 0.25 * np.clip(toward, -1, 1)), shade
            )
    coarse = Image.fromarray(rng.normal(0, 1, (24, 24)).astype(np.float32)).resize(
        (size, size), Image.Resampling.BICUBIC
    )
    tone = rng.uniform(0.92, 1.06, 3) * rng.uniform(0.85, 1.1)
    bright = image * (shade * (1 + 0.06 * np.asarray(coarse)))[..., None] * tone
    return np.clip(bright + rng.normal(0, 4, bright.shape), 0, 255).astype(np.uint8)


# --- clutter ------------------------------------------------------------------------------------

Put = Callable[[Outline], Outline]  # from the thing's frame to the canvas


def _stone(
    rng: np.random.Generator, canvas: Image.Image, pen: ImageDraw.ImageDraw, put: Put
) -> None:
    """A textured blob: what a body would look like without head, legs and tail."""
    big = rng.uniform(0.05, 0.2)
    hue, saturation, value = rng.random(), rng.uniform(0.05, 0.5), rng.uniform(0.5, 0.9)
    outline = put(_blob(rng, big, big * rng.uniform(0.4, 0.9)) * np.exp(1j * rng.uniform(0, 3.1)))
    texture = _texture(rng, _colour(hue, saturation * 1.2, value * 0.65), big * 1.1)
    body = [(outline, _colour(hue, saturation, value))]
    _stamp(canvas, body, [(put(shape), colour) for shape, colour in texture], [])


def _grass(
    rng: np.random.Generator, canvas: Image.Image, pen: ImageDraw.ImageDraw, put: Put
) -> None:
    hue, saturation, value = rng.random(), rng.uniform(0.2, 0.5), rng.uniform(0.4, 0.8)
    long = rng.uniform(0.05, 0.14)
    t = np.linspace(0, 1, 6)
    for foot, lean, light in zip(
        np.linspace(-0.06, 0.06, 9), rng.uniform(-0.6, 0.6, 9), rng.uniform(0.7, 1.2, 9)
    ):
        path = foot - 1j * long * t + long * lean * t**2
        pen.polygon(
            _xy(put(_limb(path, 0.008, 0.001))), fill=_colour(hue, saturation, value * light)
        )


def _flower(
    rng: np.random.Generator, canvas: Image.Image, pen: ImageDraw.ImageDraw, put: Put
) -> None:
    """As vivid as a head, of any hue."""
    big = rng.uniform(0.012, 0.03)
    petal, middle = (
        _colour(rng.random(), rng.uniform(0.5, 0.9), 0.95),
        _colour(rng.random(), 0.7, 0.95),
    )
    for turn in np.exp(2j * np.pi * np.arange(5) / 5):
        pen.polygon(_xy(put(big * (turn + _oval(0, 0, 0.75, 0.75, 10)))), fill=petal)
    pen.polygon(_xy(put(big * _oval(0, 0, 0.6, 0.6, 10))), fill=middle)
