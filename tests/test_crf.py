"""Dense CRF compared with mean field by plain sums and with the library."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, Refusal, build, run_stage, write_params

from plda.data.data_set import DataSet
from plda.errors import InputError
from plda.masks.estimate import expected_iou, read_estimates
from plda.masks.folder import Masks
from plda.models.inference import Inference, multi_scale
from plda.models.saved import Architecture, load_network, save_network
from plda.models.segmenters import SEGMENTER
from plda.params import read_params
from plda.processes import in_processes
from plda.refinement.crf import crf, most_likely, require

USUAL = {
    "iterations": 10,
    "smoothness_sd": 3,
    "smoothness_weight": 3,
    "appearance_sd": 80,
    "appearance_colour_sd": 13,
    "appearance_weight": 10,
}
BACKGROUND = 0.2


@pytest.fixture
def library() -> ModuleType:
    return pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf is not installed: run `make crf`")


def bump(height: int, width: int, y: float, x: float, sd: float) -> np.ndarray:
    """Return a (height, width) blob with value 1 at (y, x)."""
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sd**2))


def scene(height: int = 61, width: int = 83, noise: float = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an ellipse and a box on a background, with maps that are too small and off centre.

    Returns:
        (H, W, 3) uint8 image, (H, W) true class ids, (2, H, W) maps.
    """
    rows, columns = np.mgrid[:height, :width]
    truth = np.zeros((height, width), np.uint8)
    truth[((rows - 28) / 20) ** 2 + ((columns - 26) / 18) ** 2 < 1] = 1
    truth[22:54, 52:76] = 2
    colours = np.array([[60, 110, 150], [200, 120, 60], [70, 160, 60]])[truth]
    grain = np.random.default_rng(0).normal(0, noise, (height, width, 3))
    image = (colours + grain).clip(0, 255).astype(np.uint8)
    maps = np.stack([bump(height, width, 22, 20, 10), bump(height, width, 42, 68, 10)])
    return image, truth, maps.astype(np.float32)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def start(maps: np.ndarray, background: float) -> np.ndarray:
    """Return (1 + K, H, W) float32 initial probabilities of background and classes."""
    scores = np.concatenate([np.full((1, *maps.shape[1:]), background), maps]).astype(np.float32)
    return (scores / scores.sum(axis=0)).clip(1e-5, 1)


def marginals(library: ModuleType, image: np.ndarray, maps: np.ndarray, background: float, **p: Any) -> Any:
    """Return Q, (1 + K, H, W) float32, computed directly by the library."""
    labels, height, width = start(maps, background).shape
    field = library.DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(-np.log(start(maps, background)).reshape(labels, -1))
    field.addPairwiseGaussian(sxy=p["smoothness_sd"], compat=p["smoothness_weight"])
    field.addPairwiseBilateral(
        sxy=p["appearance_sd"], srgb=p["appearance_colour_sd"], rgbim=image, compat=p["appearance_weight"]
    )
    return np.array(field.inference(p["iterations"])).reshape(labels, height, width)


def by_plain_sums(image: np.ndarray, maps: np.ndarray, background: float, **p: Any) -> np.ndarray:
    """Compute the mean field of `crf`'s docstring in float64 with all kernel entries."""
    height, width = image.shape[:2]
    place = np.stack(np.mgrid[:height, :width], axis=-1).reshape(-1, 2).astype(float)
    colour = image.reshape(-1, 3).astype(float)
    far = ((place[:, None] - place) ** 2).sum(axis=-1)
    unlike = ((colour[:, None] - colour) ** 2).sum(axis=-1)
    smoothness = np.exp(-far / (2 * p["smoothness_sd"] ** 2))
    appearance = np.exp(-far / (2 * p["appearance_sd"] ** 2) - unlike / (2 * p["appearance_colour_sd"] ** 2))
    pull = np.zeros_like(far)
    for kernel, weight in ((smoothness, p["smoothness_weight"]), (appearance, p["appearance_weight"])):
        total = kernel.sum(axis=1)
        pull += weight * kernel / np.sqrt(total[:, None] * total)
    given = start(maps, background).astype(float).reshape(len(maps) + 1, -1)
    q = given / given.sum(axis=0)
    for _ in range(p["iterations"]):
        q = given * np.exp(q @ pull)
        q /= q.sum(axis=0)
    return (q[1:] / (q[1:].max(axis=0) + q[0])).reshape(maps.shape)


def test_missing_crf_library_error_names_field_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    image, _, maps = scene()
    with pytest.raises(InputError, match=r"params: make_masks\.refinement: a dense CRF .*`make crf`.*g\+\+"):
        require("make_masks.refinement")
    with pytest.raises(InputError, match=r"^a dense CRF needs the package pydensecrf2"):
        crf(image, maps, 0.3, **USUAL)


def test_crf_module_imports_neither_torch_nor_library() -> None:
    code = "import sys, plda.refinement.crf; print({'torch', 'numpy', 'pydensecrf'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "{'numpy'}\n"


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("changes", "mean", "most"),
    [
        ({"iterations": 1, "smoothness_weight": 1, "appearance_weight": 2}, 0.002, 0.035),
        ({"iterations": 3, "smoothness_weight": 2, "appearance_weight": 0}, 0.002, 0.03),
        (
            {"iterations": 3, "smoothness_weight": 0}
            | {"appearance_sd": 4, "appearance_colour_sd": 40, "appearance_weight": 2},
            0.0045,
            0.055,
        ),
    ],
)
def test_crf_matches_mean_field(changes: dict[str, float], mean: float, most: float) -> None:
    """Up to the lattice's error; a parameter 1.5 times as large gives a larger difference."""
    image = scene(noise=12)[0][10:41, 20:61]
    maps = np.stack([bump(31, 41, 12, 14, 6), 0.7 * bump(31, 41, 22, 27, 6)])
    values = USUAL | changes
    refined = crf(image, maps, 0.3, **values)

    def near(values: dict[str, float]) -> bool:
        away = np.abs(refined - by_plain_sums(image, maps, 0.3, **values))
        return bool(away.mean() < mean and away.max() < most)

    assert near(values)
    names = changes.keys() - {"iterations"}
    assert not any(near(values | {name: values[name] * 1.5}) for name in names if values[name])


def rivals(maps: np.ndarray) -> np.ndarray:
    """Return the first map twice, with noise of 0.1 %."""
    return maps[[0, 0]] * (1 + 1e-3 * np.random.default_rng(0).standard_normal(maps.shape))


@pytest.mark.parametrize(
    ("change", "changes"),
    [
        (np.asarray, {}),
        (rivals, {"iterations": 2, "appearance_weight": 20}),  # where both nearly exclude background
        (np.asarray, {"smoothness_weight": 300, "appearance_weight": 1000}),  # where Q_k = Q_0 = 0
    ],
)
def test_crf_winner_matches_library(library: ModuleType, change: Any, changes: dict[str, float]) -> None:
    image, _, maps = scene()
    maps = change(maps).clip(0, 1).astype(np.float32)
    q = marginals(library, image, maps, BACKGROUND, **USUAL | changes)
    m = crf(image, maps, BACKGROUND, **USUAL | changes)
    assert m.dtype == np.float32
    assert m.shape == maps.shape
    assert m.min() >= 0
    assert m.max() <= 1
    assert np.array_equal(m.max(axis=0) > 0.5, q[1:].max(axis=0) > q[0])
    assert np.array_equal(m.argmax(axis=0), q[1:].argmax(axis=0))
    assert 0.05 < (m > 0.5).mean() < 0.95


@pytest.mark.usefixtures("library")
def test_crf_extends_one_class_to_its_object() -> None:
    image, truth, maps = scene()
    for k in (0, 1):
        refined = crf(image, maps[k : k + 1], BACKGROUND, **USUAL)
        assert iou(maps[k] > BACKGROUND, truth == k + 1) < 0.65
        assert iou(refined[0] > 0.5, truth == k + 1) > 0.95


@pytest.mark.usefixtures("library")
def test_crf_extends_two_classes_to_their_objects() -> None:
    image, truth, maps = scene()
    refined = crf(image, maps, BACKGROUND, **USUAL)
    for m, threshold, least, most in ((maps, BACKGROUND, 0.0, 0.65), (refined, 0.5, 0.95, 1.0)):
        named = np.where(m.max(axis=0) > threshold, m.argmax(axis=0) + 1, 0)
        assert all(least < iou(named == k, truth == k) <= most for k in (1, 2))


def test_most_likely_follows_image_colours(library: ModuleType) -> None:
    image, truth, maps = scene()
    sure = start(maps, BACKGROUND)
    rest = np.full((5, *truth.shape), 1e-3, np.float32)  # classes that the network nearly excludes
    probabilities = np.concatenate([sure, rest])
    probabilities /= probabilities.sum(axis=0)
    kept = probabilities.copy()
    refined = most_likely(image, probabilities, **USUAL)
    assert refined.dtype == np.uint8
    q = marginals(library, image, probabilities[1:] / probabilities[0], 1.0, **USUAL)
    assert np.array_equal(refined, q.argmax(axis=0))
    before = probabilities.argmax(axis=0)
    for k in (1, 2):
        assert iou(before == k, truth == k) < 0.65
        assert iou(refined == k, truth == k) > 0.95
    odd = np.asfortranarray(probabilities)
    odd.flags.writeable = False
    assert np.array_equal(most_likely(image, odd, **USUAL), refined)
    assert np.array_equal(probabilities, kept)


@pytest.mark.usefixtures("library")
def test_crf_is_deterministic_and_keeps_arguments() -> None:
    given = scene()[0], scene()[2]
    first, second = crf(*given, BACKGROUND, **USUAL), crf(*given, BACKGROUND, **USUAL)
    assert np.array_equal(first, second)
    assert np.array_equal(given[0], scene()[0])
    assert np.array_equal(given[1], scene()[2])


@pytest.mark.usefixtures("library")
def test_crf_accepts_any_memory_layout() -> None:
    image, _, maps = scene()
    expected = crf(image, maps, BACKGROUND, **USUAL)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)  # layout of a torch image
    frozen = image.copy()
    frozen.flags.writeable = False  # read-only, like a Pillow image
    for odd in (
        planes,
        frozen,
        np.asfortranarray(image),
        np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1],
    ):
        assert np.array_equal(crf(odd, maps, BACKGROUND, **USUAL), expected)
    frozen_maps = np.asfortranarray(maps)
    frozen_maps.flags.writeable = False
    wide = np.repeat(maps, 2, axis=2)[:, :, ::2].astype(np.float64)
    for odd in (frozen_maps, wide, np.ascontiguousarray(maps[:, ::-1])[:, ::-1]):
        assert np.array_equal(crf(image, odd, BACKGROUND, **USUAL), expected)


@pytest.mark.usefixtures("library")
def test_crf_gives_same_result_in_processes() -> None:
    image, _, maps = scene()
    calls = [(image, maps, background) for background in (0.2, 0.3, 0.4)]
    refine = partial(crf, **USUAL)
    for call, refined in zip(calls, in_processes(refine, calls, 2), strict=True):
        assert np.array_equal(refined, refine(*call))


def untrained(drawn: Path, path: Path) -> Path:
    """Save an untrained segmentation network; return its path."""
    classes = DataSet(drawn / "data_set").classes
    architecture = Architecture("segmenter", "resnet10", 16, "frozen", "lraspp", classes)
    torch.manual_seed(1)
    save_network(path, architecture, build(architecture).state_dict())
    return path


@pytest.mark.usefixtures("library")
def test_predict_masks_applies_crf_if_requested(drawn: Path, tmp_path: Path) -> None:
    network = untrained(drawn, tmp_path / "network.pt")
    made = {}
    for enabled in (False, True):
        made[enabled] = tmp_path / f"masks-{enabled}"
        params = write_params(
            tmp_path / "params.yaml",
            predict_masks__refinement=["crf"] if enabled else [],
            compute__precision="32",
        )
        paths = {"segmenter": network, "predictions": made[enabled]}
        paths["estimates"] = tmp_path / f"estimates-{enabled}.csv"
        assert run_stage("predict_masks", params, data_set=drawn / "data_set", **paths) == 0
    settings = read_params(params).predict_masks
    data = DataSet(drawn / "data_set")
    loaded = load_network(network, SEGMENTER, data.classes)
    segmenter = Inference(loaded, torch.device("cpu"), torch.float32)
    entries, changed = data.split("val"), 0
    estimates = {enabled: read_estimates(tmp_path / f"estimates-{enabled}.csv", entries) for enabled in made}
    for entry in entries:
        image = data.image(entry)
        probabilities = multi_scale(
            lambda x: segmenter(x).softmax(dim=1),
            image[None],
            image.shape[1:],
            scales=settings.scales,
            flip=True,
        )[0].numpy()
        plain, refined = (Masks(made[enabled])(entry) for enabled in (False, True))
        assert np.array_equal(plain, probabilities.argmax(axis=0))
        values = settings.of("crf")
        pixels = image.permute(1, 2, 0).numpy()
        assert np.array_equal(refined, most_likely(pixels, probabilities, **values))
        changed += int((plain != refined).sum())
        ids = torch.tensor(plain).long()
        expected = float(expected_iou(torch.from_numpy(probabilities)[None], ids[None]))
        assert estimates[False][entry.key] == pytest.approx(expected, abs=0.01)
    assert len(entries) == 4
    assert changed
    assert estimates[True] == estimates[False]  # computed from the network's output, before the CRF


def test_predict_masks_checks_crf_library_before_work(
    drawn: Path, tmp_path: Path, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    params = write_params(tmp_path / "params.yaml", predict_masks__refinement=["crf"])
    message = refused(
        run_stage,
        "predict_masks",
        params,
        data_set=drawn / "data_set",
        segmenter=tmp_path / "absent.pt",
        predictions=tmp_path / "masks",
        estimates=tmp_path / "estimates.csv",
    )
    assert "params: predict_masks.refinement: a dense CRF needs the package pydensecrf2" in message
