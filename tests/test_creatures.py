"""The drawn scenes: reproducible, consistent, and with the requested strength of the cue."""

from functools import cache

import numpy as np
import pytest

from plda.sources.creatures import BODY, CLASSES, KINDS, TELLING, Scene, body_hue, draw


@cache
def scenes(count: int, **settings: float) -> list[Scene]:
    return [draw(0, number, **{"size": 64, **settings}) for number in range(count)]


def same(a: Scene, b: Scene) -> bool:
    arrays = (a.image, b.image), (a.mask, b.mask), (a.parts, b.parts)
    return a.tags == b.tags and all(np.array_equal(x, y) for x, y in arrays)


def head_share(drawn: list[Scene]) -> float:
    parts = np.stack([scene.parts for scene in drawn])
    return float(np.mean(parts[parts > 0] == TELLING))


def test_draw_depends_only_on_arguments() -> None:
    first = [draw(3, number, size=64) for number in range(4)]
    np.random.seed(0)
    state = np.random.get_state()[1]
    again = [draw(3, number, size=64) for number in reversed(range(4))][::-1]
    assert np.array_equal(np.random.get_state()[1], state)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    images = {scene.image.tobytes() for scene in first} | {draw(4, 0, size=64).image.tobytes()}
    assert len(images) == 5


@pytest.mark.parametrize("size", [64, 96, 128])
def test_draw_gives_expected_shapes_and_types(size: int) -> None:
    scene = draw(0, 0, size=size)
    assert scene.image.shape == (size, size, 3)
    assert scene.mask.shape == scene.parts.shape == (size, size)
    assert scene.image.dtype == scene.mask.dtype == scene.parts.dtype == np.uint8


def test_scene_mask_parts_and_tags_agree() -> None:
    drawn = scenes(60)
    counts = set()
    for scene in drawn:
        assert np.array_equal(scene.parts > 0, scene.mask > 0)
        assert scene.mask.max() <= KINDS
        assert set(np.unique(scene.parts)) <= {0, TELLING, BODY}
        present = [CLASSES[label] for label in np.unique(scene.mask) if label > 0]
        assert scene.tags == tuple(present)
        for name in present:  # each tagged class is visible
            own = scene.mask == CLASSES.index(name)
            assert np.count_nonzero(own & (scene.parts == TELLING)) >= 12
            assert np.count_nonzero(own & (scene.parts == BODY)) >= 12
        counts.add(len(present))
    assert counts == {1, 2, 3}
    assert {name for scene in drawn for name in scene.tags} == set(CLASSES[1:])


def test_classes_are_about_equally_frequent() -> None:
    tags = [name for scene in scenes(60) for name in scene.tags]
    frequencies = np.array([tags.count(name) for name in CLASSES[1:]]) / len(tags)
    assert np.abs(frequencies - 1 / KINDS).max() < 0.12  # of about 110 tags


@pytest.mark.parametrize("body_cue", [0.0, 0.1, 1 / KINDS, 0.5, 0.88, 1.0])
def test_body_cue_equals_accuracy_of_best_guess(body_cue: float) -> None:
    rng, count = np.random.default_rng(0), 6000
    labels = rng.integers(1, KINDS + 1, count)
    lots, places = rng.random((2, count))
    hues = np.array([body_hue(int(k), body_cue, *at) for k, *at in zip(labels, lots, places, strict=True)])
    assert hues.min() >= 0 and hues.max() < 1
    expected = max(body_cue, 1 / KINDS)
    error = 4 * np.sqrt(expected * (1 - expected) / count)  # four binomial standard deviations
    assert abs(np.mean(1 + np.floor(hues * KINDS) == labels) - expected) <= error
    # guessing the most frequent class in each of 60 narrow hue bins is no better than guessing by arcs
    bins = np.array(
        [np.bincount(labels[np.floor(hues * 60) == b], minlength=KINDS + 1).max() for b in range(60)]
    )
    assert (
        bins.sum() / count < expected + 0.08
    )  # margin for chance: the best class of a bin is chosen from the same data


def test_body_cue_changes_only_colours() -> None:
    for number in range(5):
        with_cue, without = (draw(0, number, size=64, body_cue=cue) for cue in (1.0, 0.0))
        assert np.array_equal(with_cue.mask, without.mask)
        assert np.array_equal(with_cue.parts, without.parts)
    assert any(not same(a, b) for a, b in zip(scenes(5, body_cue=1.0), scenes(5, body_cue=0.0), strict=True))


def test_body_hue_follows_class_with_full_cue() -> None:
    """In the image, with a full cue, the body hues of two classes do not overlap."""
    angles: dict[int, list[complex]] = {label: [] for label in range(1, KINDS + 1)}
    for scene in scenes(40, body_cue=1.0):
        for label in np.unique(scene.mask[scene.mask > 0]):
            r, g, b = scene.image[(scene.mask == label) & (scene.parts == BODY)].mean(axis=0)
            angles[int(label)].append(complex(r - (g + b) / 2, (g - b) * np.sqrt(3) / 2))
    for label, seen in angles.items():
        centre = 2 * np.pi * (label - 0.5) / KINDS
        away = np.angle(np.array(seen) * np.exp(-1j * centre))
        assert np.median(np.abs(away)) < np.pi / KINDS


def test_part_size_equals_fraction_of_telling_part() -> None:
    shares = [head_share(scenes(30, part_size=part_size)) for part_size in (0.08, 0.18, 0.35)]
    assert shares == sorted(shares)
    assert shares == pytest.approx([0.08, 0.18, 0.35], rel=0.2)  # bodies are more often hidden or cut off


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", -1), ("number", -1), ("size", 32), ("body_cue", 1.1), ("body_cue", -0.1), ("part_size", 0.0),
     ("part_size", 0.9), ("body_cue", float("nan"))],
)  # fmt: skip
def test_draw_names_invalid_argument(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        draw(**{"seed": 0, "number": 0, name: value})
