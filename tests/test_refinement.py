"""The random walk and its boundaries compared with float64 loops (docs/method.md); refinement chains."""

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import run_stage, small_params, write_params

from plda.data.archive import Archive
from plda.data.data_set import DataSet
from plda.data.images import VOID, enlarge_mask, read_mask
from plda.data.index import Entry, by_size
from plda.masks.cams import Cams
from plda.masks.folder import Masks, mask_name
from plda.models.backbones import Backbone
from plda.models.baselines import CAM
from plda.models.boundary import BOUNDARY, BoundaryNetwork
from plda.models.saved import load_network
from plda.params import MakeMasks, read_params
from plda.refinement.affinity import Offset, affinities, affinities_of, offsets, path
from plda.refinement.boundary import EPSILON, BoundaryLearner, confident_masks, pair_losses
from plda.refinement.chain import COLOURS, Refined, colour_step
from plda.refinement.steps import STEPS
from plda.refinement.walk import NEGLIGIBLE, chebyshev, random_walk
from plda.scoring.masks import trimap

CLASSES = ("background", "cat", "dog")


def affinity_by_loops(boundary: np.ndarray, p: tuple[int, int], q: tuple[int, int]) -> float:
    """Return 1 minus the maximum of the (h, w) boundary on the path from p to q."""
    rows, columns = (sorted(pair) for pair in zip(p, q, strict=True))
    dy, dx = q[0] - p[0], q[1] - p[1]
    crossed = [
        boundary[y, x]
        for y in range(rows[0], rows[1] + 1)
        for x in range(columns[0], columns[1] + 1)
        # distance from the line through p and q
        if abs(dy * (x - p[1]) - dx * (y - p[0])) / math.hypot(dy, dx) < 1
    ]
    return 1 - max(crossed)


def neighbours(shape: tuple[int, ...], radius: float) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield all ordered pairs of different pixels less than `radius` apart."""
    pixels = list(np.ndindex(*shape))
    for p in pixels:
        for q in pixels:
            if p != q and math.dist(p, q) < radius:
                yield p, q


def dense_walk(
    maps: np.ndarray, boundary: np.ndarray, radius: float, beta: float, doublings: int
) -> np.ndarray:
    """Compute the published form: (K, h, w) maps, and an N x N matrix squared `doublings` times."""
    height, width = boundary.shape
    a = np.eye(height * width)
    for p, q in neighbours(boundary.shape, radius):
        a[p[0] * width + p[1], q[0] * width + q[1]] = affinity_by_loops(boundary, p, q) ** beta
    transition = a / a.sum(axis=0)
    for _ in range(doublings):
        transition = transition @ transition
    return ((maps * (1 - boundary)).reshape(len(maps), -1) @ transition).reshape(maps.shape)


@pytest.mark.parametrize(
    ("height", "width", "radius", "sharpness"),
    [
        (12, 17, 5, 1),
        (17, 12, 5, 4),
        (20, 20, 5, 12),
        (9, 14, 3, 3),
        (11, 10, 7.5, 3),
        (1, 9, 5, 3),
        (3, 2, 5, 2),
    ],
)
def test_random_walk_matches_dense_definition(height: int, width: int, radius: float, sharpness: int) -> None:
    random = np.random.default_rng(height)
    boundary = random.random((2, 1, height, width)) ** sharpness
    boundary[1, :, :, width // 2] = 1.0  # a wall; its pixels have no neighbours
    maps = random.random((2, 3, height, width))
    expected = np.stack([dense_walk(m, b[0], radius, 10, 8) for m, b in zip(maps, boundary, strict=True)])
    for dtype, tolerance in ((torch.float64, 2 * NEGLIGIBLE), (torch.float32, 1e-4)):
        given = torch.tensor(maps, dtype=dtype), torch.tensor(boundary, dtype=dtype)
        kept = [x.clone() for x in given]
        walked = random_walk(*given, radius=radius)
        apart = np.abs(walked.numpy() - expected).max()
        print(f"{height} x {width}, radius {radius}, {dtype}: {apart:.1e} from the dense form")
        assert apart < tolerance
        assert walked.dtype == dtype
        assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


@pytest.mark.parametrize("doublings", [0, 1, 3])
def test_random_walk_takes_requested_number_of_steps(doublings: int) -> None:
    random = np.random.default_rng(0)
    boundary, maps = random.random((8, 9)) ** 3, random.random((2, 8, 9))
    expected = dense_walk(maps, boundary, 4, 5, doublings)
    given = torch.tensor(maps)[None], torch.tensor(boundary)[None, None]
    walked = random_walk(*given, radius=4, beta=5, steps=2**doublings)
    assert np.abs(walked[0].numpy() - expected).max() < 1e-12


def test_random_walk_stays_within_walls_on_large_maps() -> None:
    maps = torch.zeros(1, 1, 200, 300)  # a dense matrix would take 14 GB
    maps[..., 90:110, 140:160] = 1.0
    boundary = torch.zeros(1, 1, 200, 300)
    boundary[..., 170] = 1.0
    walked = random_walk(maps, boundary)[0, 0]
    assert walked[100, 165] > 0.02
    assert walked[:, 170:].abs().max() < 1e-6
    assert walked.max() <= 1 + 1e-6


def test_chebyshev_approximates_power() -> None:
    t = np.linspace(-1, 1, 1001)
    for power in (1, 2, 5, 256, 257, 4096):
        coefficients = chebyshev(power)
        assert np.abs(np.polynomial.chebyshev.chebval(t, coefficients) - t**power).max() < 2 * NEGLIGIBLE
        assert len(coefficients) <= 6 * math.sqrt(power) + 1


def test_path_contains_pixels_near_line() -> None:
    assert set(path(Offset(0, 3))) == {(0, 0), (0, 1), (0, 2), (0, 3)}
    assert set(path(Offset(2, -2))) == {(0, 0), (0, -1), (1, 0), (1, -1), (1, -2), (2, -1), (2, -2)}
    assert len(offsets(5)) == 34  # half of the 69 pixels within the radius, without the centre


def test_affinities_match_definition() -> None:
    boundary = np.random.default_rng(0).random((2, 7, 9))
    given = torch.tensor(boundary)
    every = dict(affinities(given, 4))
    places = torch.arange(given.numel()).view_as(given)
    seen = 0
    for image in range(2):
        for p, q in neighbours((7, 9), 4):
            offset = Offset(q[0] - p[0], q[1] - p[1])
            if offset in every:
                column = p[1] - max(0, -offset.dx)
                expected = affinity_by_loops(boundary[image], p, q)
                assert every[offset][image, p[0], column] == expected
                assert affinities_of(given, places[image, *p].view(1), offset) == expected
                seen += 1
    assert seen == sum(a.numel() for a in every.values())


def test_pair_losses_match_definition() -> None:
    random = np.random.default_rng(0)
    boundary = random.random((2, 6, 7))
    labels = random.choice([0, 0, 1, 1, 2, VOID], (2, 6, 7))
    losses: dict[str, list[float]] = {"foreground": [], "background": [], "apart": []}
    for image in range(2):
        for p, q in neighbours((6, 7), 4):
            one, other = labels[image][p], labels[image][q]
            if VOID not in (one, other):
                a = affinity_by_loops(boundary[image], p, q)
                kind = "apart" if one != other else "foreground" if one else "background"
                losses[kind].append(-math.log((1 - a if one != other else a) + EPSILON))
    given = torch.tensor(boundary, requires_grad=True)
    found = pair_losses(given, torch.tensor(labels), radius=4)
    for kind, values in losses.items():
        assert float(found[kind].detach()) == pytest.approx(np.mean(values), abs=1e-12), kind
    assert torch.autograd.gradcheck(
        lambda b: torch.stack(list(pair_losses(b, torch.tensor(labels), radius=4).values())), given
    )


def test_pair_losses_without_pairs_are_zero() -> None:
    found = pair_losses(torch.rand(1, 5, 5), torch.full((1, 5, 5), VOID))
    assert {kind: float(loss) for kind, loss in found.items()} == dict.fromkeys(found, 0.0)


def test_boundary_network_learns_colour_edge() -> None:
    torch.manual_seed(0)
    network = BoundaryNetwork(Backbone("resnet10", batch_norm="frozen"))
    learner = BoundaryLearner(network, radius=4)
    weights = {name: w.clone() for name, w in network.backbone.state_dict().items()}
    assert learner.train().training and not any(m.training for m in network.backbone.modules())
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=0.01)
    mask = torch.zeros(4, 64, 64, dtype=torch.long)
    image = torch.randn(4, 3, 64, 64) * 0.1
    for i, edge in enumerate((20, 28, 36, 44)):
        mask[i, :, edge:] = 1
        image[i, :, :, edge:] += 2.0
        mask[i, :, edge - 4 : edge + 4] = VOID  # the edge itself is not labelled
    first = float(learner({"image": image, "mask": mask}, 0.0)["loss"].detach())
    for _ in range(40):
        loss = learner({"image": image, "mask": mask}, 0.0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < first / 4
    boundary = network(image).sigmoid()[:, 0].detach()
    for i, edge in enumerate((20, 28, 36, 44)):
        columns = boundary[i].mean(dim=0)
        assert abs(int(columns.argmax()) - edge // 4) <= 1
        assert columns.max() > 4 * columns.mean()
    assert all(torch.equal(w, weights[name]) for name, w in network.backbone.state_dict().items())


@pytest.mark.parametrize("name", COLOURS)
def test_colour_step_fulfils_contract(name: str) -> None:
    step = colour_step(name, small_params()["make_masks"][name])
    images = torch.randint(0, 256, (2, 3, 50, 66), dtype=torch.uint8)
    images[1] = 77  # without differences in colour
    maps = torch.rand(2, 2, 13, 17)
    maps[:, 1] = 0.25
    given = images.clone(), maps.clone()
    refined = step(images, maps)
    assert refined.shape == maps.shape and refined.dtype == torch.float32
    assert refined.min() >= 0 and refined.max() <= 1
    assert not torch.allclose(refined[:, 0], maps[:, 0])
    torch.testing.assert_close(refined[:, 1], maps[:, 1])  # a uniform map stays uniform
    assert torch.equal(images, given[0]) and torch.equal(maps, given[1])
    torch.testing.assert_close(step(images[:1], maps[:1]), refined[:1])  # images do not affect each other


def test_every_step_is_registered_everywhere() -> None:
    (names,) = (get_args(item) for item in get_args(MakeMasks.model_fields["refinement"].annotation))
    assert set(names) == set(STEPS) == {*COLOURS, "regions", "random_walk", "crf"}
    assert set(names) <= set(small_params()["make_masks"]), "params.yaml shows what each may be told"


def test_unused_step_needs_no_params_section(tmp_path: Path) -> None:
    params = small_params(make_masks__refinement=["pamr"])
    del (
        params["make_masks"]["crf"],
        params["make_masks"]["random_walk"],
        params["train_boundary"]["seeds"]["crf"],
    )
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    assert read_params(path).make_masks.of("pamr") == {"iterations": 10}


def entry(name: str, height: int = 4, width: int = 6, tags: tuple[str, ...] = ("cat", "dog")) -> Entry:
    return Entry(f"images/{name}.png", "train", tags, "", "", width, height)


def test_confident_masks_match_manual_values() -> None:
    raw = torch.zeros(2, 1, 5)
    after = torch.tensor([[[0.9, 0.2, 0.0, 0.04, 0.31]], [[0.4, 0.1, 0.02, 0.06, 0.9]]])
    image = Refined(entry("a"), torch.zeros(3, 4, 20), raw, {"pamr": after})
    ((of, mask),) = confident_masks([image], lambda _: [1, 2], foreground=0.3, background=0.05)
    assert of == image.entry
    assert mask.tolist() == [[1, VOID, 0, VOID, 2]]


def test_by_size_groups_by_size_and_number_of_tags() -> None:
    entries = [
        entry("a"),
        entry("b", height=5),
        entry("c"),
        entry("d", tags=("cat",)),
        entry("e", tags=("dog",)),
    ]
    entries += [entry(str(i)) for i in range(9)]
    groups = list(by_size(entries, 8, tags=True))
    assert sorted(e for group in groups for e in group) == sorted(entries)
    assert [len(group) for group in groups] == [2, 8, 3, 1]
    for group in groups:
        assert len({(*e.size, len(e.tags)) for e in group}) == 1


def test_trimap_matches_manual_values() -> None:
    truth = np.zeros((7, 12), np.uint8)
    truth[:, 6:] = 1
    near = trimap(truth, 2)
    assert (near[:, 4:8] == truth[:, 4:8]).all()
    assert (near[:, :4] == VOID).all() and (near[:, 8:] == VOID).all()
    truth[:, 5:7] = VOID  # between two classes
    near = trimap(truth, 1)
    assert [int(x) for x in near[0]] == [VOID] * 4 + [0] + [VOID] * 2 + [1] + [VOID] * 4


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with CAMs of the drawn scenes and the network that made them."""
    folder = tmp_path_factory.mktemp("trained")
    params = write_params(folder / "params.yaml", seed=2)
    assert run_stage("train_cam", params, **data(drawn), cam_backbone=drawn / "cams.pt",
                     checkpoints=folder / "checkpoints", cam_network=folder / "cam.pt",
                     cam_history=folder / "cam.csv", cam_machine=folder / "cam.json") == 0  # fmt: skip
    assert run_stage("infer_cams", params, **data(drawn), cam_network=folder / "cam.pt",
                     cams=folder / "cams.npz") == 0  # fmt: skip
    return folder


def data(drawn: Path) -> dict[str, Path]:
    return {"data_set": drawn / "data_set"}


def boundary_stage(drawn: Path, trained: Path, out: Path, params: Path) -> dict[str, Path]:
    made = {"boundary_network": out / "network.pt", "boundary_seeds": out / "seeds.zip",
            "boundary_history": out / "history.csv"}  # fmt: skip
    given = {
        "cams": trained / "cams.npz",
        "cam_network": trained / "cam.pt",
        "checkpoints": out / "checkpoints",
    }
    assert run_stage("train_boundary", params, **data(drawn), **given, **made) == 0
    return made


def test_refinement_chain_end_to_end(drawn: Path, trained: Path, tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", make_masks__undecided=0.0)
    boundary = boundary_stage(drawn, trained, tmp_path, params)
    history = pd.read_csv(boundary["boundary_history"])
    assert len(history) == 2 and (history["loss"] > 0).all()
    parts = history[["foreground", "background", "apart"]]
    assert history["loss"].to_numpy() == pytest.approx(parts.mean(axis=1).to_numpy(), rel=1e-4)
    scenes = DataSet(drawn / "data_set")
    network = load_network(boundary["boundary_network"], BOUNDARY, scenes.classes)
    cam = load_network(trained / "cam.pt", CAM, scenes.classes)
    ours, theirs = network.backbone.state_dict(), cam.backbone.state_dict()
    assert all(torch.equal(ours[name], weights) for name, weights in theirs.items())

    made = {"pseudo_masks": tmp_path / "masks", "refined_cams": tmp_path / "refined.npz",
            "background_scores": tmp_path / "scores.json"}  # fmt: skip
    paths = {"cams": trained / "cams.npz", "boundary_network": boundary["boundary_network"], **made}
    assert run_stage("make_masks", params, **data(drawn), **paths) == 0
    raw, after, sure = (
        Cams(trained / "cams.npz"),
        Cams(made["refined_cams"]),
        Archive(boundary["boundary_seeds"]),
    )
    scores = pd.read_json(made["background_scores"], typ="series")["scores"]
    assert list(scores) == ["seeds", "pamr", "random_walk"]
    assert all(0 < score < 1 for score in scores.values())
    for each in scenes.training:
        steps = [raw.read(each.key), *(after.read(f"{step}/{each.key}") for step in ("pamr", "random_walk"))]
        for before, now in pairwise(steps):
            assert before.shape == now.shape
            assert torch.equal(before, now) == (not before.any())
            assert now.min() >= 0 and now.max() <= 1
        confident = read_mask(sure.read(mask_name(each)))
        assert confident.shape == steps[0].shape[1:]
        assert enlarge_mask(confident, each.size).shape == Masks(made["pseudo_masks"])(each).shape

    metrics = {"cam_metrics": tmp_path / "metrics.json", "cam_class_scores": tmp_path / "classes.csv",
               "seed_curve": tmp_path / "curve.csv"}  # fmt: skip
    assert run_stage("evaluate_cams", params, **data(drawn), cam_history=trained / "cam.csv",
                     cams=trained / "cams.npz", boundary_seeds=boundary["boundary_seeds"], **made,
                     **metrics) == 0  # fmt: skip
    found = pd.read_json(metrics["cam_metrics"], typ="series")
    for step, score in scores.items():
        assert found[step]["background_score"] == pytest.approx(score, abs=1e-4)
        assert found[f"{step}_best"]["miou"] >= found[step]["miou"] - 1  # the curve's steps are coarse
        assert 0 < found[step]["miou_outlines"] < 100
    assert found["pseudo_masks"]["miou"] == found["random_walk"]["miou"]  # no pixel is undecided
    assert 0 < found["boundary_seeds"]["undecided"] < 100


def test_train_boundary_trains_no_network_if_disabled(drawn: Path, trained: Path, tmp_path: Path) -> None:
    params = write_params(
        tmp_path / "params.yaml", train_boundary__enabled=False, make_masks__refinement=["pamr"]
    )
    boundary = boundary_stage(drawn, trained, tmp_path, params)
    assert Archive(boundary["boundary_seeds"]).names() == []
    assert len(pd.read_csv(boundary["boundary_history"])) == 0
    assert boundary["boundary_network"].stat().st_size < 10_000
