"""PAMR compared with float64 loops; multi-scale maps, seeds, thresholds and scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from plda.data.data_set import DataSet, write_data_set
from plda.data.images import VOID, encode_mask
from plda.data.index import Entry
from plda.errors import InputError
from plda.masks.cams import Cams, map_size, normalise_maps, write_cams
from plda.masks.seeds import Strengths, pseudo_mask, seeds, strengths
from plda.models.inference import multi_scale
from plda.refinement.chain import Refined, background_scores_of
from plda.refinement.pamr import DILATIONS, pamr
from plda.scoring.confusion import Confusion
from plda.scoring.masks import score_seeds, score_set


def pamr_by_loops(image: np.ndarray, maps: np.ndarray, iterations: int) -> np.ndarray:
    """Compute PAMR (docs/method.md, PLDA) pixel by pixel in float64: image (3, h, w), maps (K, h, w)."""
    _, h, w = image.shape
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]

    def at(y: int, x: int) -> tuple[int, int]:
        return min(max(y, 0), h - 1), min(max(x, 0), w - 1)

    weights, places = {}, {}
    for y in range(h):
        for x in range(w):
            nine = [at(y + d * dy, x + d * dx) for d in DILATIONS for dy, dx in around]
            eight = [at(y + d * dy, x + d * dx) for d in DILATIONS for dy, dx in around if (dy, dx) != (0, 0)]
            sigma = [np.std([image[c][p] for p in nine], ddof=1) for c in range(3)]
            alike = np.array(
                [
                    np.mean([-abs(image[c][q] - image[c, y, x]) / (1e-8 + 0.1 * sigma[c]) for c in range(3)])
                    for q in eight
                ]
            )
            e = np.exp(alike - alike.max())
            weights[y, x], places[y, x] = e / e.sum(), eight
    for _ in range(iterations):
        maps = np.array(
            [
                [
                    [
                        sum(a * m[q] for a, q in zip(weights[y, x], places[y, x], strict=True))
                        for x in range(w)
                    ]
                    for y in range(h)
                ]
                for m in maps
            ]
        )
    return maps


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_pamr_matches_definition(dtype: torch.dtype, tolerance: float) -> None:
    random = np.random.default_rng(0)
    image, maps = random.random((2, 3, 9, 13)), random.random((2, 2, 9, 13))
    image[1, :, :, 5:] = 0.25  # a flat region, where the deviation is small or zero
    given = torch.tensor(image, dtype=dtype), torch.tensor(maps, dtype=dtype)
    kept = [x.clone() for x in given]
    refined = pamr(*given, iterations=3)
    for b in range(2):
        expected = pamr_by_loops(image[b], maps[b], 3)
        assert np.abs(refined[b].numpy() - expected).max() < tolerance
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))
    assert refined.dtype == dtype


def test_pamr_aligns_map_with_colour_edge() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[..., :16] = 1.0
    blob = torch.zeros(1, 1, 32, 32)
    blob[..., 8:24, 4:20] = 1.0  # extends over the edge at column 16
    refined = pamr(image, blob)[0, 0]
    assert refined[8:24, 16:].mean() < blob[0, 0, 8:24, 16:].mean() / 4


def test_multi_scale_averages_scales_and_flips() -> None:
    """With a network that returns its input, the average equals the image wherever it is smooth."""
    ramp = torch.arange(64).float().mul(2).byte().expand(1, 3, 48, 64)
    seen = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return x

    maps = multi_scale(network, ramp, (12, 16), scales=[0.75, 1.0, 2.0], flip=True)
    assert seen == [(2, 3, 36, 48), (2, 3, 48, 64), (2, 3, 96, 128)]
    assert maps.shape == (1, 3, 12, 16)
    assert (maps[..., 1:] > maps[..., :-1]).all()  # still rising to the right: flipped back before averaging
    once = multi_scale(network, ramp, (12, 16), scales=[1.0], flip=False)
    assert (maps - once).abs().max() < 0.05


def test_cams_are_stored_by_key(tmp_path: Path) -> None:
    maps = {"a": torch.rand(2, 5, 7), "dogs/b": torch.rand(1, 3, 3)}
    write_cams(tmp_path / "cams.npz", maps.items())
    cams = Cams(tmp_path / "cams.npz")
    with np.load(tmp_path / "cams.npz") as opened:  # an open format: numpy can read it
        assert set(opened.files) == set(maps)
        assert opened["dogs/b"].dtype == np.float16
    for key, value in maps.items():
        torch.testing.assert_close(cams.read(key), value, rtol=0, atol=5e-4)
    assert map_size(375, 500) == (94, 125)
    top = normalise_maps(torch.stack([torch.rand(4, 4) * 7, torch.zeros(4, 4)]))
    assert top[0].max() == pytest.approx(1, abs=1e-4)
    assert not top[1].any()


def test_seeds_and_pseudo_mask_match_manual_values() -> None:
    maps = torch.tensor([[[0.1, 0.5, 0.9]], [[0.2, 0.45, 0.3]]])
    assert seeds(maps, [3, 7], 0.4).tolist() == [[0, 3, 3]]
    assert seeds(maps, [3, 7], 0.15).tolist() == [[7, 3, 3]]
    assert pseudo_mask(maps, [3, 7], 0.4, 0.15, (1, 3)).tolist() == [[0, VOID, 3]]
    assert pseudo_mask(maps, [3, 7], 0.4, 0.0, (2, 6)).shape == (2, 6)


def test_otsu_splits_two_groups() -> None:
    histogram = Strengths()
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        low = 0.2 + 0.05 * torch.randn(1, 20, 20, generator=random)
        high = 0.8 + 0.05 * torch.randn(1, 10, 20, generator=random)
        histogram.add(torch.cat([low, high], dim=1).clamp(0, 1))
    assert 0.35 < histogram.otsu() < 0.65
    assert not histogram.flat


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_otsu_makes_flat_maps_background(level: float) -> None:
    maps = torch.full((2, 4, 4), level)
    histogram = strengths([maps, maps])
    assert histogram.flat
    assert not seeds(maps, [3, 7], histogram.otsu()).any()


def test_background_scores_reject_flat_maps() -> None:
    entry = Entry("images/a.png", "train", ("cat",), "", "", 8, 8)
    image = Refined(entry, torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(1, 2, 2), {})
    with pytest.raises(InputError, match="maps of all 1 sampled images are flat"):
        background_scores_of(lambda entries: [image for _ in entries], [entry], ["seeds"], "auto")
    assert background_scores_of(lambda _: [], [entry], ["seeds"], 0.4) == ({"seeds": 0.4}, "params")


def test_confusion_scores_match_manual_values() -> None:
    confusion = Confusion(3)
    confusion.add(np.array([[0, 0, 1, 1, 2, VOID]], np.uint8), np.array([[0, 1, 1, VOID, 0, 2]], np.uint8))
    scores = confusion.scores()
    # background: hit 1, truth 2, given 2; class 1: hit 1, truth 2, given 2; class 2: hit 0, truth 1, given 0
    assert scores.iou.tolist() == [1 / 3, 1 / 3, 0]
    assert scores.recall.tolist() == [0.5, 0.5, 0]
    assert scores.precision[:2].tolist() == [0.5, 0.5]
    assert scores.mean()["miou"] == pytest.approx(22.22)
    assert confusion.undecided() == 1 / 5
    assert confusion.decided_scores().iou.tolist() == [1 / 3, 1 / 2, 0]
    with pytest.raises(ValueError, match="cannot be compared"):
        confusion.add(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))


def test_confusion_objects_match_manual_values() -> None:
    """Object pixels: 5 true, 7 predicted, 3 in both (2 of the right class); 1 true pixel is undecided."""
    confusion = Confusion(3)
    truth = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, VOID]
    given = [0, 1, 1, 2, 2, VOID, 1, 2, VOID, 2, 0, 1]
    for half in (slice(0, 8), slice(8, None)):  # one confusion matrix for the whole set
        confusion.add(np.array([truth[half]], np.uint8), np.array([given[half]], np.uint8))
    assert confusion.objects() == {
        "object_iou": 33.33,  # 3 of 9, without the undecided background pixel
        "object_precision": 42.86,  # 3 of 7
        "object_recall": 60.0,  # 3 of 5: the undecided pixel is a miss
        "object_class": 66.67,
        "object_share": 63.64,  # 7 of 11
        "object_share_true": 45.45,  # 5 of 11
    }


@pytest.mark.parametrize(
    ("truth", "given", "some"),
    [
        (0, 0, {}),
        (0, VOID, {}),
        (VOID, 1, {}),
        (0, 1, {"object_share": 100.0}),
        (1, 0, {"object_share_true": 100.0}),
        (1, VOID, {"object_share_true": 100.0}),
    ],
)
def test_confusion_objects_without_overlap_are_zero(truth: int, given: int, some: dict[str, float]) -> None:
    confusion = Confusion(2)
    confusion.add(np.full((2, 2), truth, np.uint8), np.full((2, 2), given, np.uint8))
    names = ("iou", "precision", "recall", "class", "share", "share_true")
    assert confusion.objects() == {f"object_{name}": 0.0 for name in names} | some


def test_miou_is_computed_over_whole_set() -> None:
    confusion = Confusion(2)
    confusion.add(np.ones((1, 9), np.uint8), np.ones((1, 9), np.uint8))
    confusion.add(np.ones((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    assert confusion.scores().iou.tolist() == [0, 0.9]


def scored_set(folder: Path, classes: Sequence[str] = ("background", "cat", "dog")) -> tuple[DataSet, Cams]:
    random = np.random.default_rng(0)
    images, maps = [], {}
    for name, tags in (("a", ("cat", "dog")), ("b", ("dog",)), ("c", ("cat",))):
        truth = random.choice([0, 1, 2, VOID], (16, 20)).astype(np.uint8)
        parts = random.integers(0, 3, (16, 20)).astype(np.uint8)
        files = {f"masks/{name}.png": encode_mask(truth), f"parts/{name}.png": encode_mask(parts)}
        maps[name] = torch.from_numpy(random.random((len(tags), 4, 5))).float()
        images.append((Entry(f"images/{name}.png", "train", tags, *files, 20, 16), files))
    write_data_set(folder / "data_set", classes, images)
    write_cams(folder / "cams.npz", maps.items())
    return DataSet(folder / "data_set"), Cams(folder / "cams.npz")


def test_score_seeds_matches_each_threshold_alone(tmp_path: Path) -> None:
    data, cams = scored_set(tmp_path)
    thresholds = [0.7, 0.1, 0.5, 0.999]
    for threshold, confusion in zip(
        thresholds,
        score_seeds(data, data.entries, lambda e: cams.read(e.key), thresholds),
        strict=True,
    ):
        alone = score_set(
            data,
            data.entries,
            lambda e, t=threshold: pseudo_mask(
                cams.read(e.key), [data.classes.index(tag) for tag in e.tags], t, 0.0, (16, 20)
            ).numpy(),
        ).everywhere
        assert np.array_equal(confusion.counts, alone.counts), threshold
        assert alone.pixels > 500


def test_score_set_gives_recall_by_part(tmp_path: Path) -> None:
    names = ["background", "cat", "dog", *map(str, range(3, VOID))]
    data, _ = scored_set(tmp_path, names)
    nothing = score_set(data, data.entries, lambda _: np.full((16, 20), VOID - 1, np.uint8)).parts
    assert nothing == {"telling": 0, "body": 0}
    without = [e._replace(parts="") for e in data.entries]
    assert score_set(data, without, lambda _: np.zeros((16, 20), np.uint8)).parts is None
