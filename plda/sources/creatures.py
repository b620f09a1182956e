"""Synthetic scenes ("creatures") that show the problem of PLDA, with exact masks and without a download.

A scene shows one to three creatures on clutter. A creature has a *telling part* and a *body*. The telling
part is the head, with a shape and colours that only its class has. The body (torso, legs, tail and texture)
comes from one pool for all classes and says little about the class. Heads are enough to predict the tags, so
the activation maps of a tag classifier cover heads and miss bodies. The parameter `body_cue` sets how much a
body says about its class, through its hue only. The clutter has the same hues and textures, and some colours
as vivid as a head's, so that colour does not reveal the mask.

Visibility: at least `MIN_HEAD` and `MIN_PIXELS` of each head and `MIN_BODY` of each body are neither hidden
nor cut off. A creature that finds no such place in `TRIES` tries is left out (the front one is then put in
the middle). The mask is sampled at pixel centres and has no void outline.

Shapes are polygons of complex numbers: x to the right, y *down*. A torso is about 0.8 long and faces right.
"""

import colorsys
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Outline = NDArray[np.complex128]  # (corners,)
Colour = tuple[int, int, int]
Shape = tuple[Outline, Colour]

CLASSES = ("background", "bird", "cat", "mouse", "bull", "rabbit", "snail")
KINDS = len(CLASSES) - 1
TELLING, BODY = 1, 2  # values of Scene.parts

FINER = 3  # drawn three times larger, then reduced; odd, so that the mask can be sampled at pixel centres
OBJECTS = (0.4, 0.35, 0.25)  # chances of 1, 2, 3 creatures
REPEAT = 0.15  # chance that a further creature is of the same class as the first
LENGTH = (0.4, 0.7)  # unit of a creature's coordinates, as a fraction of the image side
MIN_HEAD, MIN_BODY, MIN_PIXELS, TRIES = 0.7, 0.35, 12, 8
CLUTTER = 34  # number of objects in the background
HEAD_ON_TORSO = 0.32  # measured fraction of a head that covers its body


@dataclass(frozen=True)
class Scene:
    """`image` (S, S, 3) RGB; `mask` (S, S) class ids, 0 = background; `parts` (S, S) 0, TELLING or BODY,
    above 0 exactly where `mask` is; `tags`: the classes in `mask`, in order of id."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class _Creature:
    label: int
    body: list[Shape]
    texture: list[Shape]  # painted on the body only
    head: list[Shape]
    areas: tuple[float, float]  # of the head and of the visible body, in creature coordinates


def draw(
    seed: int, number: int, *, size: int = 128, body_cue: float = 0.88, part_size: float = 0.18
) -> Scene:
    """Draw scene `number` of the data set `seed`. Order and process do not matter.

    Another version of NumPy or Pillow, or another kind of CPU, may round single values differently.

    size: side of the image in pixels, at least 48.
    body_cue: accuracy in [0, 1] of the best guess of the class from the body's hue; up to 1/KINDS: no cue.
    part_size: mean fraction in [0.05, 0.5] of the creature's area that the head takes if nothing is hidden.
    Changing body_cue or part_size changes nothing else, except places where a larger head would be hidden.
    Raises ValueError, which names the argument, for values out of range.
    """
    limits = {"seed": (seed, 0, np.inf), "number": (number, 0, np.inf), "size": (size, 48, np.inf),
              "body_cue": (body_cue, 0, 1), "part_size": (part_size, 0.05, 0.5)}  # fmt: skip
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must be in [{low}, {high}], got {value}")
    # one random stream per object, so that the draws of one object do not change the others
    cast, ground, light, *each = np.random.default_rng([seed, number]).spawn(3 + len(OBJECTS))
    creatures: list[_Creature] = []  # front to back
    owner = np.zeros((size, size), np.uint8)  # 2k + part where the k-th creature is visible
    for rng, label in zip(each, _labels(cast), strict=False):
        placed = _place(rng, _creature(rng, label, body_cue, part_size), owner, front=not creatures)
        if placed is not None:
            codes = _parts(placed, size)
            seen = (owner == 0) & (codes > 0)
            owner[seen] = 2 * len(creatures) + codes[seen]
            creatures.append(placed)
    canvas = _clutter(ground, size * FINER)
    for creature in reversed(creatures):
        _stamp(canvas, creature.body, creature.texture, creature.head)
    mask = np.array([0, *(c.label for c in creatures for _ in (TELLING, BODY))], np.uint8)[owner]
    parts = np.array([0, *(TELLING, BODY) * len(creatures)], np.uint8)[owner]
    image = _light(light, np.asarray(canvas.reduce(FINER)), creatures, owner)
    return Scene(image, mask, parts, tuple(CLASSES[label] for label in np.unique(mask) if label))


def body_hue(label: int, body_cue: float, lot: float, place: float) -> float:
    """Return the hue in [0, 1) of a body of class `label` (1..KINDS).

    `lot` and `place` are uniform draws in [0, 1). With probability p = (body_cue - 1/C) / (1 - 1/C) the hue
    is in the arc of the class, [(label-1)/C, label/C), else anywhere. The best guess is the class whose arc
    holds the hue; it is right with probability p + (1 - p)/C = body_cue.
    """
    chance = 1 / KINDS
    return (label - 1 + place) * chance if lot < (body_cue - chance) / (1 - chance) else place


def _labels(rng: np.random.Generator) -> list[int]:
    count = 1 + int(rng.choice(len(OBJECTS), p=OBJECTS))
    labels = 1 + rng.permutation(KINDS)[: len(OBJECTS)]
    labels[1:][rng.random(len(OBJECTS) - 1) < REPEAT] = labels[0]
    return [int(label) for label in labels[:count]]


# --- shapes ---


def _oval(x: float, y: float, rx: float, ry: float) -> Outline:
    return np.array(x + 1j * y + rx * CIRCLE.real + 1j * ry * CIRCLE.imag, np.complex128)


def _corners(*points: complex) -> Outline:
    return np.array(points, np.complex128)


def _both(outline: Outline, colour: Colour) -> list[Shape]:
    """Return the shape and its mirror image."""
    return [(outline, colour), (-outline.conj(), colour)]


def _blob(rng: np.random.Generator, rx: float, ry: float) -> Outline:
    waves = np.outer((2, 3, 5), np.angle(CIRCLE)) + rng.uniform(0, 2 * np.pi, (3, 1))
    swell: Outline = (1 + rng.uniform(0, 0.07, 3) @ np.cos(waves)) * _oval(0, 0, rx, ry)
    return swell


def _limb(path: Outline, start: float, end: float) -> Outline:
    """Return a band along `path` whose half width goes from `start` to `end`."""
    along = np.gradient(path)
    side = 1j * along / np.abs(along) * np.linspace(start, end, len(path))
    return np.concatenate([path + side, (path - side)[::-1]])


def _colour(hue: float, saturation: float, value: float) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1.0), min(value, 1.0))
    return round(255 * r), round(255 * g), round(255 * b)


def _tint(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255, round(c * factor)) for c in colour)
    return r, g, b


CIRCLE = np.exp(2j * np.pi * np.arange(28) / 28)
BLACK, WHITE, CREAM, YELLOW = (25, 20, 25), (250, 248, 240), (255, 225, 190), (255, 205, 20)
RED, ROSE, ORANGE, VIOLET = (215, 30, 45), (255, 100, 150), (255, 140, 20), (150, 70, 215)
BLUE, GREEN, LIME = (40, 90, 235), (10, 110, 60), (110, 225, 50)

# Front views of faces of radius 1 around 0, shapes back to front; hues far from the hue arc of the class.
HEADS: dict[str, list[Shape]] = {
    "bird": [  # crest and beak
        *_both(_corners(-0.05 - 0.6j, 0.85 - 1.5j, 0.9 - 0.4j), RED),
        (_corners(-0.4 - 0.7j, -1.8j, 0.4 - 0.7j), RED), (_oval(0, 0, 1, 1), BLUE),
        *_both(_oval(0.42, -0.15, 0.4, 0.44), WHITE), *_both(_oval(0.36, -0.1, 0.18, 0.2), BLACK),
        (_corners(-0.5 + 0.25j, 0.1j, 0.5 + 0.25j, 1.25j), YELLOW),
        (_corners(-0.4 + 0.4j, 0.4 + 0.4j, 0.52j), BLACK),
    ],
    "cat": [  # pointed ears, striped forehead
        *_both(_corners(1 - 0.1j, 0.92 - 1.5j, 0.05 - 0.85j), ORANGE),
        *_both(_corners(0.8 - 0.5j, 0.8 - 1.2j, 0.35 - 0.8j), ROSE), (_oval(0, 0, 1.08, 0.95), ORANGE),
        (_corners(-0.13 - 0.95j, 0.13 - 0.95j, -0.3j), BLACK),
        *_both(_corners(0.25 - 0.93j, 0.51 - 0.85j, 0.38 - 0.4j), BLACK),
        *_both(_corners(1.1, 1.1 + 0.3j, 0.6 + 0.25j), BLACK),
        *_both(_oval(0.42, -0.08, 0.23, 0.26), LIME), *_both(_oval(0.42, -0.08, 0.09, 0.25), BLACK),
        *_both(_oval(0.22, 0.5, 0.32, 0.27), WHITE), (_corners(-0.18 + 0.25j, 0.18 + 0.25j, 0.45j), RED),
    ],
    "mouse": [  # large round ears, pointed snout
        *_both(_oval(0.98, -0.8, 0.78, 0.78), VIOLET), *_both(_oval(0.98, -0.8, 0.5, 0.5), ROSE),
        (_corners(-0.95, -0.6 - 0.75j, -0.8j, 0.6 - 0.75j, 0.95, 0.75 + 0.5j, 1.25j, -0.75 + 0.5j), VIOLET),
        *_both(_oval(0.4, -0.1, 0.2, 0.22), BLACK), *_both(_oval(0.46, -0.17, 0.07, 0.08), WHITE),
        (_oval(0, 0.7, 0.48, 0.42), WHITE), (_oval(0, 0.98, 0.24, 0.2), ROSE),
    ],
    "bull": [  # horns, blaze, broad muzzle
        *_both(_corners(0.45 - 0.65j, 1.1 - 0.8j, 1.3 - 1.6j, 1.75 - 1.1j, 1.6 - 0.4j, 0.6 - 0.1j), WHITE),
        (_corners(-0.9 - 0.7j, 0.9 - 0.7j, 0.8 + 0.9j, -0.8 + 0.9j), RED),
        (_oval(0, -0.5, 0.95, 0.55), RED), (_corners(-0.25 - 1j, 0.25 - 1j, 0.3j), WHITE),
        *_both(_oval(0.5, -0.15, 0.2, 0.2), WHITE), *_both(_oval(0.48, -0.12, 0.12, 0.12), BLACK),
        (_oval(0, 0.75, 0.95, 0.5), CREAM), *_both(_oval(0.38, 0.68, 0.16, 0.2), BLACK),
    ],
    "rabbit": [  # long ears, red cheeks, teeth
        *_both(_oval(0.5, -1.45, 0.36, 1), WHITE), *_both(_oval(0.5, -1.45, 0.19, 0.75), ROSE),
        (_oval(0, 0, 1, 0.92), WHITE), *_both(_oval(0.66, 0.3, 0.27, 0.24), ROSE),
        *_both(_oval(0.38, -0.15, 0.19, 0.25), BLACK), *_both(_oval(0.43, -0.24, 0.07, 0.09), WHITE),
        (_corners(-0.2 + 0.18j, 0.2 + 0.18j, 0.42j), RED),
        (_corners(-0.2 + 0.55j, 0.2 + 0.55j, 0.2 + 0.85j, -0.2 + 0.85j), CREAM),
    ],
    "snail": [  # eyes on stalks, ringed face
        *_both(_corners(0.2 - 0.6j, 0.55 - 0.6j, 0.95 - 1.5j, 0.7 - 1.6j), LIME),
        *_both(_oval(0.85, -1.6, 0.42, 0.42), WHITE), *_both(_oval(0.82, -1.55, 0.2, 0.2), BLACK),
        (_oval(0, 0, 1, 1), LIME), (_oval(0, 0.02, 0.78, 0.78), GREEN), (_oval(0, 0.05, 0.58, 0.58), LIME),
        (_oval(0, 0.08, 0.36, 0.36), GREEN), (_oval(0, 0.1, 0.16, 0.16), YELLOW),
    ],
}  # fmt: skip


def _texture(rng: np.random.Generator, colour: Colour, reach: float) -> list[Shape]:
    """Return stripes, spots, patches or nothing over [-reach, reach]², for bodies and clutter alike."""
    kind, slant = rng.integers(4), np.exp(1j * rng.uniform(-0.5, 0.5))
    places, extents = rng.uniform(-1, 1, (16, 2)) @ (1, 1j), rng.uniform(0.5, 1, 16)
    width = rng.uniform(0.05, 0.1)
    bar = _corners(-width - 1.5j, width - 1.5j, width + 1.5j, -width + 1.5j) * slant
    stripes = [bar + x for x in np.linspace(-1.3, 1.3, 9)]
    spots = [place + 0.13 * extent * CIRCLE for place, extent in zip(places, extents, strict=True)]
    patches = [place + 3 * (spot - place) for place, spot in zip(places[:4], spots[:4], strict=True)]
    return [(reach * outline, colour) for outline in (stripes, spots, patches, [])[kind]]


def _creature(rng: np.random.Generator, label: int, body_cue: float, part_size: float) -> _Creature:
    hue = body_hue(label, body_cue, *rng.random(2))
    saturation, value = rng.uniform((0.4, 0.65), (0.65, 0.9))
    coat, shadow = _colour(hue, saturation, value), _colour(hue, saturation, value * 0.8)
    dark, light = _colour(hue, saturation * 1.2, value * 0.6), _colour(hue, 0.15, value * 1.25)
    texture = _texture(rng, dark if rng.random() < 0.6 else light, 0.45)
    torso = _blob(rng, rng.uniform(0.34, 0.42), rng.uniform(0.2, 0.28))
    behind = [_tail(rng), *_legs(rng)]
    body = [*((limb, shadow) for limb in behind), (torso, coat)]
    whole = _area([*behind, torso]) / (1 - part_size * (1 - HEAD_ON_TORSO))
    areas = part_size * whole, (1 - part_size) * whole
    neck = torso.real.max() * rng.uniform(0.85, 0.95) + 1j * torso.imag.min() * rng.uniform(0.5, 0.75)
    grow = np.sqrt(areas[0] / _head_area(label)) * np.exp(1j * rng.uniform(-0.3, 0.3))
    fade = rng.uniform(0.85, 1.1)
    head = [(neck + grow * outline, _tint(colour, fade)) for outline, colour in HEADS[CLASSES[label]]]
    return _Creature(label, body, texture, head, areas)


def _legs(rng: np.random.Generator) -> list[Outline]:
    length, knees = rng.uniform(0.25, 0.42), rng.uniform(-0.08, 0.08, 4)
    stance = ((-0.27, -0.14, 0.1, 0.24), (-0.1, 0.12), (-0.25, -0.08, 0.08, 0.25))[rng.integers(3)]
    paths = [
        x + 0.08j + _corners(0, knee + 0.5j * length, 1j * length)
        for x, knee in zip(stance, knees, strict=False)
    ]
    return [_limb(path, 0.07, 0.045) for path in paths]


def _tail(rng: np.random.Generator) -> Outline:
    t = np.linspace(0, 1, 10)
    path = -0.3 - 0.05j - rng.uniform(0.2, 0.45) * t * np.exp(1j * rng.uniform(-2, 2) * t)
    return _limb(path, *((0.05, 0.02), (0.03, 0.08), (0.06, 0.06))[rng.integers(3)])


@cache
def _head_area(label: int) -> float:
    return 16 * _area([outline / 4 for outline, _ in HEADS[CLASSES[label]]])


def _area(outlines: list[Outline]) -> float:
    """Return the area of the union, counted on a grid over [-1, 1]²."""
    cells = 128
    grid = Image.new("1", (cells, cells))
    _fill(grid, [((outline + 1 + 1j) * cells / 2, 1) for outline in outlines])
    return float(np.asarray(grid).mean()) * 4


# --- the scene ---


def _fill(image: Image.Image, shapes: list[tuple[Outline, int]] | list[Shape]) -> None:
    pen = ImageDraw.Draw(image)
    for outline, value in shapes:
        pen.polygon(_flat(outline), fill=value)


def _flat(outline: Outline) -> list[float]:
    xy: list[float] = outline.view(np.float64).tolist()  # x, y, x, y, ...
    return xy


def _place(
    rng: np.random.Generator, creature: _Creature, owner: NDArray[np.uint8], front: bool
) -> _Creature | None:
    """Return the creature on the canvas, at the first place where enough of it is visible, or None."""
    size = len(owner)
    length = LENGTH[0] * (LENGTH[1] / LENGTH[0]) ** rng.random()
    turn, mirrored = length * np.exp(1j * rng.uniform(-0.5, 0.5)), rng.random() < 0.5
    head, body = (area * (length * size) ** 2 for area in creature.areas)  # in pixels
    for place in rng.uniform(0.1, 0.9, (TRIES, 2)) @ (1, 1j):
        moved = _moved(creature, size * FINER, place, turn, mirrored)
        seen = np.bincount(_parts(moved, size)[owner == 0], minlength=3)
        if seen[TELLING] >= max(MIN_PIXELS, MIN_HEAD * head) and seen[BODY] >= MIN_BODY * body:
            return moved
    return _moved(creature, size * FINER, 0.5 + 0.5j, turn, mirrored) if front else None


def _moved(creature: _Creature, side: int, place: complex, turn: complex, mirrored: bool) -> _Creature:
    def move(shapes: list[Shape]) -> list[Shape]:
        return [(side * (place + turn * (-s.conj() if mirrored else s)), colour) for s, colour in shapes]

    body, texture, head = move(creature.body), move(creature.texture), move(creature.head)
    return replace(creature, body=body, texture=texture, head=head)


def _parts(creature: _Creature, size: int) -> NDArray[np.uint8]:
    """Return TELLING, BODY or 0 at the pixel centres, (S, S)."""
    image = Image.new("L", (size * FINER, size * FINER))
    _fill(image, [(outline, BODY) for outline, _ in creature.body])
    _fill(image, [(outline, TELLING) for outline, _ in creature.head])
    return np.asarray(image)[FINER // 2 :: FINER, FINER // 2 :: FINER]


def _stamp(canvas: Image.Image, body: list[Shape], texture: list[Shape], head: list[Shape]) -> None:
    """Paint inside the silhouette of `body` and `head`, so that texture stays inside; cropped for speed."""
    points = np.concatenate([outline for outline, _ in body + head])
    left, top = int(points.real.min()) - 1, int(points.imag.min()) - 1
    extent = int(points.real.max()) + 2 - left, int(points.imag.max()) + 2 - top
    shapes = [(outline - complex(left, top), colour) for outline, colour in body + texture + head]
    paint, stencil = Image.new("RGB", extent), Image.new("L", extent)
    covered = len(body) + len(texture)
    _fill(paint, shapes[:covered])
    edge, colour = shapes[len(body) - 1]
    ImageDraw.Draw(paint).line(_flat(np.append(edge, edge[0])), fill=_tint(colour, 0.6), width=FINER)
    _fill(paint, shapes[covered:])
    _fill(stencil, [(outline, 255) for outline, _ in shapes[: len(body)] + shapes[covered:]])
    canvas.paste(paint, (left, top), stencil)


def _clutter(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw a ground of soft colours with stones, grass and flowers on it."""
    palette = [_colour(rng.random(), rng.uniform(0.1, 0.4), rng.uniform(0.4, 0.85)) for _ in range(4)]
    ground = np.array(palette, np.uint8)[rng.integers(len(palette), size=(6, 6))]
    canvas = Image.fromarray(ground).resize((side, side), Image.Resampling.BICUBIC)
    kinds, places = rng.choice(3, CLUTTER, p=(0.4, 0.4, 0.2)), rng.random((CLUTTER, 2)) @ (1, 1j)
    for kind, place in zip(kinds, places, strict=True):
        thing = (_stone, _grass, _flower)[kind](rng)
        body, texture = ([(side * (place + s), colour) for s, colour in shapes] for shapes in thing)
        _stamp(canvas, body, texture, [])
    return canvas


def _stone(rng: np.random.Generator) -> tuple[list[Shape], list[Shape]]:
    """Return a torso without head, legs and tail."""
    reach, hue, saturation, value = rng.uniform((0.05, 0, 0.05, 0.5), (0.2, 1, 0.5, 0.9))
    turn = np.exp(1j * rng.uniform(0, np.pi))
    texture = _texture(rng, _colour(hue, saturation * 1.2, value * 0.65), reach * 1.1)
    outline = turn * _blob(rng, reach, reach * rng.uniform(0.4, 0.9))
    return [(outline, _colour(hue, saturation, value))], texture


def _grass(rng: np.random.Generator) -> tuple[list[Shape], list[Shape]]:
    length, hue, saturation, value = rng.uniform((0.05, 0, 0.2, 0.4), (0.14, 1, 0.5, 0.8))
    blades = []
    feet, leans, lights = np.linspace(-0.06, 0.06, 9), rng.uniform(-0.6, 0.6, 9), rng.uniform(0.7, 1.2, 9)
    for foot, lean, light in zip(feet, leans, lights, strict=True):
        bend = lean * 0.35 - 0.6j
        blade = _corners(-0.08, 0.08, bend + 0.05, lean - 1j, bend - 0.05)
        blades.append((foot + length * blade, _colour(hue, saturation, value * light)))
    return blades, []


def _flower(rng: np.random.Generator) -> tuple[list[Shape], list[Shape]]:
    """Return a flower as vivid as a head, in any hue."""
    reach, hue, saturation, other = rng.uniform((0.012, 0, 0.5, 0), (0.03, 1, 0.9, 1))
    petal, centres = _colour(hue, saturation, 0.95), np.exp(0.4j * np.pi * np.arange(5))
    petals = [(reach * (0.75 * CIRCLE + centre), petal) for centre in centres]
    return [*petals, (0.6 * reach * CIRCLE, _colour(other, 0.7, 0.95))], []


def _light(
    rng: np.random.Generator, image: NDArray[np.uint8], creatures: list[_Creature], owner: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Add shading of each head and torso from one side, uneven daylight and its tone, stains and grain."""
    size = len(owner)
    grid = np.mgrid[:size, :size] / size
    where = grid[1] + 1j * grid[0]  # (S, S)
    sun = np.exp(1j * rng.uniform(-2.6, -0.5))  # somewhere above
    slope = rng.uniform(-0.25, 0.25, 2) @ (1, 1j)
    shade = 1 + ((where - 0.5 - 0.5j) * slope.conj()).real
    for k, creature in enumerate(creatures):
        for part, shapes in ((TELLING, creature.head), (BODY, creature.body[-1:])):
            points = np.concatenate([outline for outline, _ in shapes]) / (size * FINER)
            toward = ((where - points.mean()) * sun.conj()).real / np.abs(points - points.mean()).max()
            shade = np.where(owner == 2 * k + part, shade * (1 + 0.25 * np.clip(toward, -1, 1)), shade)
    stains = Image.fromarray(rng.normal(1, 0.06, (24, 24)).astype(np.float32))
    spread = np.asarray(stains.resize((size, size), Image.Resampling.BICUBIC))
    tone = rng.uniform(0.92, 1.06, 3) * rng.uniform(0.85, 1.1)
    lit = image * (shade * spread)[..., None] * tone + rng.normal(0, 4, image.shape)
    return np.asarray(np.clip(lit, 0, 255), np.uint8)
