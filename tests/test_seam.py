"""The baseline `seam`: formulas compared with float64 loops, gradients, and what each loss trains."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from plda.data.transforms import LEAST_SIDE, resize
from plda.models.backbones import Backbone
from plda.models.cam import CamOutput
from plda.models.seam import (
    VIEW,
    SeamNetwork,
    View,
    comparable,
    cross_loss,
    equivariance_loss,
    minimum_loss,
    pixel_correlation,
    prepared,
    stretch,
    strongest,
)

B, C, G, H, W = 2, 3, 4, 5, 6
ZERO = torch.zeros((), dtype=torch.float64)
TAGS = torch.tensor([[1.0, 0, 1], [0, 1, 0]], dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pixels(x: Tensor) -> list[tuple[int, int]]:
    return [(i, j) for i in range(x.shape[-2]) for j in range(x.shape[-1])]


def assembled(maps: Tensor, value: Callable[[int, int, int, int], Tensor]) -> Tensor:
    """Return a (B, K, h, w) tensor like `maps`, built value by value."""
    batch, channels, height, width = maps.shape
    flat = [value(b, k, *p) for b in range(batch) for k in range(channels) for p in pixels(maps)]
    return torch.stack(flat).reshape(batch, channels, height, width)


def strongest_by_loops(maps: Tensor) -> Tensor:
    def value(b: int, k: int, i: int, j: int) -> Tensor:
        highest = max(maps[b, :, i, j])
        if k == 0:
            return 1 - highest
        return maps[b, k - 1, i, j] if maps[b, k - 1, i, j] == highest else ZERO

    return assembled(torch.cat([maps[:, :1], maps], dim=1), value)


def prepared_by_loops(scores: Tensor) -> Tensor:
    foreground = scores[:, 1:].detach()

    def value(b: int, k: int, i: int, j: int) -> Tensor:
        peak = max(0.0, *(float(foreground[b, k, y, x]) for y, x in pixels(scores)))
        return max(foreground[b, k, i, j], ZERO) / (peak + 1e-5)

    return strongest_by_loops(assembled(foreground, value))


def correlation_by_loops(maps: Tensor, g: Tensor) -> Tensor:
    batch, channels, height, width = maps.shape
    refined = []
    for b in range(batch):
        unit = {}
        for i, j in pixels(g):
            vector = g[b, :, i, j]
            unit[i, j] = vector / ((vector * vector).sum().sqrt() + 1e-5)
        column = {}
        for q in unit:
            alike = {p: torch.clamp((unit[p] * unit[q]).sum(), min=0) for p in unit}
            total = sum(alike.values()) + 1e-5
            column[q] = {p: a / total for p, a in alike.items()}
        for k in range(channels):
            for q in unit:
                refined.append(sum(maps[b, k, p[0], p[1]] * column[q][p] for p in unit))
    return torch.stack(refined).reshape(batch, channels, height, width)


def stretch_by_loops(maps: Tensor) -> Tensor:
    ranges = {}
    for b in range(maps.shape[0]):
        for k in range(maps.shape[1]):
            positive = [torch.clamp(maps[b, k, i, j], min=0) for i, j in pixels(maps)]
            ranges[b, k] = min(positive), max(positive)

    def value(b: int, k: int, i: int, j: int) -> Tensor:
        low, high = ranges[b, k]
        above = torch.clamp(torch.clamp(maps[b, k, i, j], min=0) - low - 1e-5, min=0)
        return above / (high - low + 1e-5)

    return assembled(maps, value)


def minimum_by_loops(refined: Tensor, tags: Tensor) -> Tensor:
    batch, channels, height, width = refined.shape
    kept = max(1, height * width // 4)
    total = ZERO
    for b in range(batch):
        highest = [max(refined[b, c, i, j] * tags[b, c] for c in range(channels)) for i, j in pixels(refined)]
        for value in sorted(highest)[:kept]:
            total = total + torch.clamp(value, min=0) / (batch * kept)
    return total


def equivariance_by_loops(first: Tensor, second: Tensor) -> Tensor:
    total = ZERO
    for one, other in zip(first.flatten(), second.flatten(), strict=True):
        total = total + abs(one - other) / first.numel()
    return total


def cross_by_loops(maps: Tensor, refined: Tensor) -> Tensor:
    batch, channels, height, width = refined.shape
    kept = max(1, int(0.2 * channels * height * width))
    wanted = strongest_by_loops(maps.detach())
    total = ZERO
    for b in range(batch):
        gaps = [
            abs(wanted[b, k, i, j] - refined[b, k, i, j]) for k in range(channels) for i, j in pixels(refined)
        ]
        for value in sorted(gaps, reverse=True)[:kept]:
            total = total + value / (batch * kept)
    return total


# function, its loop form, its arguments, indices of the arguments that have a gradient
CASES = {
    "prepared": (prepared, prepared_by_loops, [random(B, C + 1, H, W)], []),
    "strongest": (strongest, strongest_by_loops, [random(B, C, H, W).sigmoid()], [0]),
    "pixel_correlation": (
        pixel_correlation,
        correlation_by_loops,
        [random(B, C + 1, H, W).sigmoid(), random(B, G, H, W, seed=1)],
        [0, 1],
    ),
    "stretch": (stretch, stretch_by_loops, [random(B, C, H, W) + 0.7], [0]),
    "minimum_loss": (minimum_loss, minimum_by_loops, [random(B, C, H, W).sigmoid(), TAGS], [0]),
    "equivariance_loss": (
        equivariance_loss,
        equivariance_by_loops,
        [random(B, C, H, W).sigmoid(), random(B, C, H, W, seed=1).sigmoid()],
        [0, 1],
    ),
    "cross_loss": (
        cross_loss,
        cross_by_loops,
        [random(B, C, H, W).sigmoid(), random(B, C + 1, H, W, seed=1).sigmoid()],
        [1],
    ),
}


def gaps_between(
    function: Callable, by_loops: Callable, given: list[Tensor], with_gradient: list[int]
) -> tuple[float, float]:
    """Return the largest differences in value and in gradient of a random weighting; loops use float64."""
    gradients, values = [], []
    for run, exact in ((function, False), (by_loops, True)):
        arguments = [(x.double() if exact else x).clone() for x in given]
        for i in with_gradient:
            arguments[i].requires_grad_()
        value = run(*arguments)
        for argument, before in zip(arguments, given, strict=True):
            assert torch.equal(argument.detach().to(before.dtype), before)
        assert value.requires_grad == bool(with_gradient)
        if with_gradient:
            value.backward(random(value.numel(), seed=2).to(value.dtype).reshape(value.shape))
        assert value.dtype == arguments[0].dtype
        values.append(value.detach().double())
        gradients.append([arguments[i].grad.double() for i in with_gradient])
    assert values[0].shape == values[1].shape
    assert values[1].abs().max() > 0
    value_gap = float((values[0] - values[1]).abs().max())
    return value_gap, max([float((a - b).abs().max()) for a, b in zip(*gradients, strict=True)], default=0.0)


@pytest.mark.parametrize("name", CASES)
def test_functions_match_formulas(name: str) -> None:
    function, by_loops, given, with_gradient = CASES[name]
    gap, gradient_gap = gaps_between(function, by_loops, given, with_gradient)
    single = gaps_between(function, by_loops, [x.float() for x in given], with_gradient)
    text = "{}: value differs by {:.1e}, gradient by {:.1e}; in float32 by {:.1e} and {:.1e}"
    print(text.format(name, gap, gradient_gap, *single))
    assert max(gap, gradient_gap) < 1e-12
    assert max(single) < 1e-5


@pytest.mark.parametrize("name", ["pixel_correlation", "stretch", "minimum_loss", "equivariance_loss"])
def test_functions_pass_gradcheck(name: str) -> None:
    function, _, given, with_gradient = CASES[name]
    arguments = [x.clone().requires_grad_(i in with_gradient) for i, x in enumerate(given)]
    assert torch.autograd.gradcheck(function, arguments)


def test_cross_loss_has_gradient_only_for_refined_maps() -> None:
    _, _, (maps, refined), _ = CASES["cross_loss"]
    assert torch.autograd.gradcheck(lambda r: cross_loss(maps, r), refined.clone().requires_grad_())
    maps, refined = (x.clone().requires_grad_() for x in (maps, refined))
    cross_loss(maps, refined).backward()
    assert maps.grad is None
    assert refined.grad.any()


def test_functions_stay_finite_for_empty_maps() -> None:
    flat = torch.full((1, C, 1, 1), 0.3)
    nothing = torch.zeros(1, C + 1, 1, 1)
    assert not stretch(flat).any()
    assert prepared(nothing - 1).flatten().tolist() == [1, 0, 0, 0]
    refined = pixel_correlation(prepared(nothing), torch.zeros(1, G, 1, 1, requires_grad=True))
    refined.sum().backward()
    assert not refined.any()
    tags = torch.ones(1, C)
    for loss in (minimum_loss(flat, tags), cross_loss(flat, nothing), equivariance_loss(flat, flat)):
        assert math.isfinite(loss)
    assert float(minimum_loss(flat, tags)) == pytest.approx(0.3)  # at least one pixel
    assert float(cross_loss(flat, nothing)) == pytest.approx(0.7)  # at least one of the four


def test_comparable_masks_tags_and_resizes() -> None:
    maps = random(B, C, H, W)
    torch.testing.assert_close(comparable(maps, TAGS, (H, W)), stretch(maps) * TAGS[:, :, None, None])
    small = comparable(maps, TAGS, (2, 3))
    assert small.shape == (B, C, 2, 3)
    assert not small[TAGS == 0].any()


def seam_network() -> tuple[SeamNetwork, Tensor, Tensor]:
    torch.manual_seed(0)
    network = SeamNetwork(Backbone("resnet10", output_stride=8), C)
    torch.nn.init.normal_(network.head.weight, std=0.5)
    return network, torch.randn(B, 3, 64, 64), TAGS.float()


def test_look_matches_definition() -> None:
    network, image, _ = seam_network()
    output, refined = network.eval().look(image)
    features = network.backbone(image)
    scores = network.head(features["stage4"])
    # at this stride, the two stages already have the size of the scores
    parts = [
        resize(network.backbone.normalise(image), (8, 8)),
        F.conv2d(features["stage2"], network.narrow2.weight).relu(),
        F.conv2d(features["stage3"], network.narrow3.weight).relu(),
    ]
    g = F.conv2d(torch.cat(parts, dim=1), network.correlation.weight)
    assert [x.shape[1] for x in (*parts, g)] == [3, 64, 128, 192]
    expected = correlation_by_loops(prepared_by_loops(scores.double()), g.detach().double())
    print(f"refined maps differ by {float((refined - expected).abs().max().detach()):.1e}")
    torch.testing.assert_close(refined, expected.float(), rtol=0, atol=1e-5)
    assert torch.equal(output.maps, refined[:, 1:])
    torch.testing.assert_close(output.scores, scores[:, 1:])
    torch.testing.assert_close(output.logits, scores[:, 1:].mean(dim=(2, 3)))
    assert refined.min() >= 0
    assert refined.max() <= 1


def losses_by_loops(first: View, second: View, tags: Tensor) -> dict[str, Tensor]:
    present = torch.cat([torch.ones(B, 1), tags], dim=1).double()
    tags = tags.double()

    def tag_losses(logits: Tensor) -> Tensor:
        total = ZERO
        for b in range(B):
            for c in range(C):
                x = logits[b, c] if tags[b, c] else -logits[b, c]
                total = total + (1 + (-x).exp()).log() / (B * C)
        return total

    looks, s, r = [], [], []
    for output, refined in (first, second):
        scores, refined = output.scores.double(), refined.double()
        looks.append((scores, refined))
        s.append(stretch_by_loops(scores))
        r.append(stretch_by_loops(refined))
    size = s[1].shape[-2:]
    s[0], r[0] = resize(s[0], size), resize(r[0], size)
    s = [x * tags[:, :, None, None] for x in s]
    r = [x * present[:, :, None, None] for x in r]
    return {
        "tags": sum(tag_losses(scores.mean(dim=(2, 3))) for scores, _ in looks) / 2,
        "minimum": sum(minimum_by_loops(refined[:, 1:], tags) for _, refined in looks) / 2,
        "equivariance": equivariance_by_loops(*s),
        "cross": cross_by_loops(s[1], r[0]) + cross_by_loops(s[0], r[1]),
    }


@pytest.mark.parametrize("side", [64, 120])
def test_losses_combine_both_views(side: int) -> None:
    network, _, tags = seam_network()
    image = torch.randn(B, 3, side, side)
    network.eval()
    by_hand = copy.deepcopy(network)
    output, parts = network.losses(image, tags)
    assert isinstance(output, CamOutput)
    torch.testing.assert_close(output.maps, network(image).maps)
    size = max(LEAST_SIDE, round(VIEW * side))
    assert size == {64: 32, 120: 36}[side]
    expected = losses_by_loops(by_hand.look(image), by_hand.look(resize(image, (size, size))), tags)
    assert list(parts) == list(expected)
    sum(parts.values()).backward()
    sum(expected.values()).backward()
    gaps = {name: abs(float((parts[name] - expected[name]).detach())) for name in parts}
    gradients = [
        float((p.grad - q.grad).abs().max() / q.grad.abs().max())
        for p, q in zip(network.parameters(), by_hand.parameters(), strict=True)
    ]
    print(
        f"{side} px:",
        ", ".join(f"{k} differs by {v:.1e}" for k, v in gaps.items()),
        f"; gradient by {max(gradients):.1e} of its largest value",
    )
    assert all(float(value.detach()) > 0 for value in parts.values())
    assert max(gaps.values()) < 1e-5
    assert max(gradients) < 1e-4  # float32 through the whole backbone


def test_only_scores_train_the_backbone() -> None:
    network, image, tags = seam_network()
    own = [network.narrow2.weight, network.narrow3.weight, network.correlation.weight]
    for teacher in ("refined", "minimum", "cross", "scores", "tags", "equivariance"):
        network.zero_grad()
        if teacher in ("refined", "scores"):
            view = network.look(image)
            loss = (view.refined if teacher == "refined" else view.output.scores).square().sum()
        else:
            loss = network.losses(image, tags)[1][teacher]
        loss.backward()
        taught = [p.grad is not None for p in (*network.backbone.parameters(), *network.head.parameters())]
        correlation = [p.grad is not None for p in own]
        through_scores = teacher in ("scores", "tags", "equivariance")
        assert set(taught) == {through_scores}, teacher
        assert set(correlation) == {not through_scores}, teacher


@pytest.mark.parametrize("stride", [8, 32])
def test_seam_network_gives_expected_shapes(stride: int) -> None:
    network = SeamNetwork(Backbone("resnet10", output_stride=stride), C).eval()
    image = torch.randn(1, 3, 70, 45).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        output = network(image)
    h, w = -(-70 // stride), -(-45 // stride)
    assert output.scores.shape == output.maps.shape == (1, C, h, w)
    assert output.logits.shape == (1, C)
    assert output.scores.dtype == output.maps.dtype == torch.float32
    assert output.maps.min() >= 0
    _, parts = network.losses(image[..., :33, :33], torch.ones(1, C))  # the second view has one map pixel
    assert all(part.shape == () and part.isfinite() for part in parts.values())


def test_mixed_precision_computes_formulas_in_float32() -> None:
    network, image, tags = seam_network()
    network.eval()
    with torch.autocast("cpu", torch.bfloat16):
        _, parts = network.losses(image, tags)
        views = network.look(image), network.look(resize(image, (LEAST_SIDE, LEAST_SIDE)))
    output, refined = views[0]
    assert output.features["stage3"].dtype == torch.bfloat16
    assert output.scores.dtype == refined.dtype == torch.float32
    fine, coarse = (output.features[stage].float() for stage in ("stage2", "stage3"))
    colours = resize(network.backbone.normalise(image), (8, 8))
    likeness = [colours, network.narrow2(fine).relu(), network.narrow3(coarse).relu()]
    maps = prepared(torch.cat([output.scores[:, :1], output.scores], dim=1))
    expected = pixel_correlation(maps, network.correlation(torch.cat(likeness, dim=1)))
    torch.testing.assert_close(refined, expected, rtol=0, atol=1e-5)
    for name, value in losses_by_loops(*views, tags).items():
        torch.testing.assert_close(parts[name], value.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_few_training_steps_lower_the_loss(optimizer: type[torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    network = SeamNetwork(Backbone("resnet10", output_stride=8), C)
    image, tags = torch.randn(4, 3, 64, 64), torch.eye(C)[[0, 1, 2, 0]]
    image += 2 * tags[:, :, None, None]  # each class has a colour
    steps = optimizer(network.parameters(), lr={torch.optim.SGD: 0.05, torch.optim.AdamW: 1e-3}[optimizer])
    history = []
    for _ in range(8):
        _, parts = network.losses(image, tags)
        loss = sum(parts.values())
        history.append({"loss": float(loss.detach()), "tags": float(parts["tags"].detach())})
        steps.zero_grad()
        loss.backward()
        steps.step()
    first, last = history[0], history[-1]
    print(f"{optimizer.__name__}: {first} -> {last}")
    assert last["loss"] < 0.9 * first["loss"]
    assert last["tags"] < 0.9 * first["tags"]
