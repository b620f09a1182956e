"""Formulas of the adaptation compared with float64 loops, and their gradients."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BASELINES
from test_masks import pamr_by_loops
from torch import Tensor

from plda.adaptation.adversary import DomainHeads, adversarial_loss, reversal_strength, reverse_gradient
from plda.adaptation.domains import IGNORED, confident, domain_labels, erase
from plda.adaptation.learner import PUBLISHED, PldaLearner
from plda.adaptation.supervision import pseudo_labels, supervision_loss
from plda.data.transforms import resize
from plda.models.backbones import Backbone
from plda.models.baselines import build_baseline

B, C, H, W = 2, 3, 5, 6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TAGS = torch.tensor([[1.0, 0, 1], [0, 1, 0]], dtype=torch.float64)


def test_confident_matches_formula() -> None:
    maps = random(B, C, H, W)
    maps[0, 2] = -1  # a tagged class without positive response
    given = maps.clone()
    found = confident(maps, TAGS, 0.6)
    for b in range(B):
        for c in range(C):
            m = np.maximum(maps[b, c].numpy(), 0)
            low, high = m.min(), m.max()
            m = np.where(m < low + 1e-5, 0, m)
            n = (m - low - 1e-5) / (high - low + 1e-5) * float(TAGS[b, c])
            assert np.array_equal(found[b, c].numpy(), n > 0.6)
    assert found[0, 0].any()
    assert not found[0, 1:].any()
    assert torch.equal(maps, given)


def test_erase_replaces_only_source_pixels() -> None:
    image = random(B, 3, 2 * H, 2 * W)
    source = confident(random(B, C, H, W), TAGS, 0.6)
    colour = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    erased = erase(image, source, colour[:, None, None])
    for b in range(B):
        for y in range(2 * H):
            for x in range(2 * W):
                gone = bool(source[b, :, y // 2, x // 2].any())
                expected = colour if gone else image[b, :, y, x]
                assert torch.equal(erased[b, :, y, x], expected)


def test_domain_labels_prefer_source_over_target() -> None:
    source = torch.tensor([[[[True, True, False, False]]]])
    target = torch.tensor([[[[True, False, True, False]]]])
    assert domain_labels(source, target).flatten().tolist() == [0, 0, 1, 255]


def adversarial_by_loops(logits: Tensor, labels: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    height, width = labels.shape[-2:]
    for c in range(C):
        if not (labels[:, c] != IGNORED).any():
            continue
        for b in range(B):
            counts = [int((labels[b, c] == d).sum()) for d in (0, 1)]
            n = sum(counts)
            for y in range(height):
                for x in range(width):
                    d = int(labels[b, c, y, x])
                    if d == IGNORED:
                        continue
                    p = logits[b, c, :, y, x].softmax(0)
                    q = p.detach()
                    entropy = -(q * q.log()).sum()
                    balance = (n - counts[d]) / (1 + n)
                    total = total - p[d].log() * (1 + torch.exp(-entropy)) * balance / (B * height * width)
    return total


def supervision_by_loops(scores: Tensor, labels: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    height, width = labels.shape[-2:]
    for b in range(B):
        counts = [int(labels[b, k].sum()) for k in range(C + 1)]
        n = sum(counts)
        for y in range(height):
            for x in range(width):
                logits = torch.cat([torch.ones(1, dtype=torch.float64), scores[b, :, y, x]])
                for k in range(C + 1):
                    if labels[b, k, y, x]:
                        loss = -logits.log_softmax(0)[k] * (n - counts[k]) / (1 + n)
                        total = total + loss / (B * height * width)
    return total


def labels_for(name: str) -> Tensor:
    if name == "adversarial":
        labels = torch.randint(0, 3, (B, C, H, W), generator=torch.Generator().manual_seed(1))
        labels[labels == 2] = IGNORED
        labels[:, 1] = IGNORED  # a class without a labelled pixel
        return labels
    winner = torch.randint(0, C + 2, (B, 1, H, W), generator=torch.Generator().manual_seed(1))
    return torch.cat([winner == k for k in range(C + 1)], dim=1)


CASES = {
    "adversarial": (adversarial_loss, adversarial_by_loops, (B, C, 2, H, W)),
    "supervision": (supervision_loss, supervision_by_loops, (B, C, H, W)),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_match_formulas(name: str) -> None:
    loss, by_loops, shape = CASES[name]
    labels = labels_for(name)
    ours, theirs = (random(*shape).requires_grad_() for _ in range(2))
    value, expected = loss(ours, labels), by_loops(theirs, labels)
    value.backward()
    expected.backward()
    gap = float((value - expected).abs().detach())
    gradient_gap = float((ours.grad - theirs.grad).abs().max())
    print(f"{name}: loss differs by {gap:.1e}, gradient by {gradient_gap:.1e}")
    assert float(expected.detach()) > 0
    assert max(gap, gradient_gap) < 1e-12
    single = random(*shape).float().requires_grad_()
    loss(single, labels).backward()
    assert (single.grad.double() - theirs.grad).abs().max() < 1e-5


def test_losses_pass_gradcheck() -> None:
    labels = labels_for("supervision")
    assert torch.autograd.gradcheck(
        lambda s: supervision_loss(s, labels), random(B, C, H, W).requires_grad_()
    )
    # the entropy weight is detached, so gradcheck uses the loss with this weight fixed
    labels = labels_for("adversarial")
    logits = random(B, C, 2, H, W)
    p = logits.softmax(dim=2)
    weight = 1 + torch.exp((p * p.log()).sum(dim=2))

    def fixed(x: Tensor) -> Tensor:
        counts = torch.stack([(labels == d).sum(dim=(2, 3)) for d in (0, 1)], dim=2).double()
        n = counts.sum(dim=2, keepdim=True)
        balance = ((n - counts) / (1 + n))[..., None, None]
        chosen = torch.stack([labels == d for d in (0, 1)], dim=2)
        return ((chosen * -x.log_softmax(dim=2) * balance).sum(dim=2) * weight).sum() / (B * H * W)

    x, y = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(fixed, x)
    adversarial_loss(y, labels).backward()
    fixed(x).backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-12)


def test_losses_are_zero_without_labels_or_with_one_class() -> None:
    logits = random(B, C, 2, H, W).requires_grad_()
    loss = adversarial_loss(logits, torch.full((B, C, H, W), IGNORED))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()
    scores = random(B, C, H, W).requires_grad_()
    one_class = torch.zeros(B, C + 1, H, W, dtype=torch.bool)
    one_class[:, 2, 1:3] = True
    assert (
        float(supervision_loss(scores.detach(), one_class)) == 0
    )  # published class balance: a single class has weight 0


def test_pseudo_labels_match_definition() -> None:
    height, width = 9, 8
    scores, image = 2 * random(B, C, height, width), random(B, 3, height, width).sigmoid()
    teaches = random(B, C, height, width, seed=5) > -0.5
    for background in (False, True):
        labels = pseudo_labels(scores, image, TAGS, teaches, background=background)
        for b in range(B):
            logits = torch.cat([torch.ones(1, height, width, dtype=torch.float64), scores[b]])
            refined = pamr_by_loops(image[b].numpy(), logits.softmax(0).numpy(), 10)
            tags = [1, *TAGS[b].tolist()]
            over = []
            for k in range(C + 1):
                m = refined[k] * tags[k]
                over.append(m > max(0.2, (0.7 if k == 0 else 0.6) * m.max()))
            alone = np.sum(over, axis=0) == 1
            for k in range(C + 1):
                allowed = teaches[b, k - 1].numpy() if k else background
                assert np.array_equal(labels[b, k].numpy(), over[k] & alone & allowed)
    assert labels.any()


def test_pseudo_labels_use_image_finer_than_maps() -> None:
    """The object differs from its background only in texture; its map is one third too wide."""
    image = torch.full((1, 3, 32, 32), 0.5)
    image[..., :12] = (torch.arange(32)[:, None] + torch.arange(12)) % 2  # a checkerboard in 3 of 8 columns
    scores = torch.full((1, 1, 8, 8), -3.0)
    scores[..., :4] = 3.0
    tags, teaches = torch.ones(1, 1), torch.ones(1, 1, 8, 8, dtype=torch.bool)
    coarse = pseudo_labels(scores, resize(image, (8, 8)), tags, teaches, background=True)
    fine = pseudo_labels(scores, image, tags, teaches, background=True)
    assert fine[0, 1, :, :3].all() and not fine[0, 1, :, 3:].any()
    assert coarse[0, 1, :, 3].any()


def test_reverse_gradient_and_strength_match_formulas() -> None:
    x = random(3).requires_grad_()
    y = reverse_gradient(x, 0.3)
    assert torch.equal(x, y)
    (2 * y).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), -0.6, dtype=torch.float64))
    assert reversal_strength(0.0) == 0
    assert reversal_strength(0.25) == pytest.approx(2 / (1 + math.exp(-2.5)) - 1)
    assert reversal_strength(1.0) == pytest.approx(0.99991, abs=1e-5)


def test_domain_heads_are_separate_per_class() -> None:
    heads = DomainHeads(8, C).eval()
    features, where = torch.randn(B, 8, H, W), torch.rand(B, H, W) > 0.4
    logits = heads(features, 0.5, where)
    assert logits.shape == (B, C, 2, H, W)
    trunk = features.movedim(1, -1)
    for layer in heads.layers[:-1]:
        trunk = layer(trunk)
    last = heads.layers[-1]
    for c in range(C):
        weight, bias = last.weight[2 * c : 2 * c + 2], last.bias[2 * c : 2 * c + 2]
        alone = torch.nn.functional.linear(trunk, weight, bias).movedim(-1, 1)
        torch.testing.assert_close(logits[:, c], alone * where[:, None])


def test_domain_heads_on_labelled_pixels_equal_whole_map() -> None:
    """Loss and gradients equal those of heads on the whole map."""
    labels = labels_for("adversarial")
    labels[torch.rand(B, 1, H, W, generator=torch.Generator().manual_seed(2)).expand(-1, C, -1, -1) > 0.5] = (
        IGNORED
    )
    heads = DomainHeads(8, C).eval().double()
    results = []
    for where in ((labels != IGNORED).any(dim=1), torch.ones(B, H, W, dtype=torch.bool)):
        features = random(B, 8, H, W).requires_grad_()
        loss = adversarial_loss(heads(features, 0.5, where), labels)
        weight = heads.layers[0].weight
        results.append((loss, *torch.autograd.grad(loss, [features, weight])))
    assert 0 < int((labels != IGNORED).any(dim=1).sum()) < B * H * W
    for chosen, every in zip(*results, strict=True):
        torch.testing.assert_close(chosen, every, rtol=0, atol=1e-12)


def learner(baseline: str = "cam", **changes: Any) -> tuple[PldaLearner, dict[str, Tensor]]:
    """Return a learner without dropout and with fixed batch statistics, so that losses are comparable."""
    torch.manual_seed(0)
    network = build_baseline(baseline, Backbone("resnet10", output_stride=8), C)
    torch.nn.init.normal_(network.head.weight, std=0.5)
    batch = {"image": torch.rand(B, 3, 64, 64), "tags": TAGS.float()}
    return PldaLearner(network, C, PUBLISHED.model_copy(update=changes)).eval(), batch


def test_second_pass_does_not_update_batch_norm() -> None:
    network, batch = learner()
    plain = copy.deepcopy(network.network)
    network.train()(batch, 0.5)
    plain.train()(batch["image"])
    for name, value in plain.state_dict().items():
        assert torch.equal(value, network.network.state_dict()[name]), name


@pytest.mark.parametrize("baseline", BASELINES)
def test_learner_weights_scale_loss_parts(baseline: str) -> None:
    network, batch = learner(baseline, background="both")
    losses = network(batch, 0.5)
    _, parts = network.network.losses(batch["image"], batch["tags"])
    assert losses.keys() == {"loss", *parts, "adversary", "supervision", "reversal"}
    base = torch.stack(list(parts.values())).sum()
    assert min(float(losses[part].detach()) for part in ("tags", "adversary", "supervision")) > 0
    torch.testing.assert_close(losses["loss"], base + losses["adversary"] + losses["supervision"])
    for adversary, supervision in ((0.0, 0.0), (2.0, 0.0), (0.0, 3.0)):
        other, _ = learner(baseline, background="both", adversary=adversary, supervision=supervision)
        found = other(batch, 0.5)
        expected = base + adversary * losses["adversary"] + supervision * losses["supervision"]
        torch.testing.assert_close(found["loss"], expected)
        assert bool(found["adversary"] > 0) == (adversary > 0)


def test_learner_starts_adaptation_after_warmup() -> None:
    network, batch = learner(warmup=0.5, background="both")
    for progress, adapts in ((0.0, False), (0.49, False), (0.5, True), (0.9, True)):
        losses = network(batch, progress)
        assert (losses["loss"] != losses["tags"]) == adapts, progress
        assert bool(losses["supervision"] > 0) == adapts
        expected = reversal_strength((progress - 0.5) / 0.5) if adapts else 0
        assert float(losses["reversal"]) == pytest.approx(expected)


def test_adversary_reverses_backbone_gradient() -> None:
    """The heads' gradient does not depend on lambda; the backbone's is -lambda times the plain gradient."""
    gradients = {}
    for progress in (0.05, 0.2):
        network, batch = learner(supervision=0.0)
        network(batch, progress)["adversary"].backward()
        backbone = next(network.network.backbone.parameters()).grad / reversal_strength(progress)
        gradients[progress] = backbone, network.heads.layers[0].weight.grad
    for one, other in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-9)


def test_constant_reversal_ignores_progress() -> None:
    assert reversal_strength(0.0, "constant") == reversal_strength(1.0, "constant") == 1
    gradients = []
    for progress in (0.05, 0.2):
        network, batch = learner(reversal="constant", supervision=0.0)
        network(batch, progress)["adversary"].backward()
        gradients.append(next(network.network.backbone.parameters()).grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


def test_adversary_on_stage3_gives_no_gradient_to_stage4() -> None:
    """With features of stage 3, which may be larger than the maps, stage 4 gets no gradient."""
    network, batch = learner(features="stage3", supervision=0.0)
    network.network.backbone = Backbone("resnet10", output_stride=32).eval()
    batch["image"] = torch.randn(B, 3, 192, 192)
    network(batch, 0.5)["adversary"].backward()
    layers = network.network.backbone.network
    reached = [
        any(p.grad is not None and p.grad.any() for p in layer.parameters())
        for layer in (layers.layer1, layers.layer2, layers.layer3, layers.layer4)
    ]
    assert reached == [True, True, True, False]


def test_per_labelled_averages_over_labelled_pixels() -> None:
    network, batch = learner()
    over_all = network(batch, 0.5)["adversary"]
    other, _ = learner(per_labelled=True)
    over_labelled = other(batch, 0.5)["adversary"]
    output = network.network(batch["image"])
    source = confident(output.maps, batch["tags"], 0.6)
    second = network.network(erase(batch["image"], source, network.network.backbone.mean))
    labelled = (source | confident(second.maps, batch["tags"], 0.6)).any(dim=1)
    torch.testing.assert_close(over_all / over_labelled, labelled.float().mean())


def test_published_step_matches_combined_formulas() -> None:
    """Loss and gradients of a whole step, at the published positions, compared with float64 loops."""
    network, batch = learner()
    image, tags = batch["image"], batch["tags"]
    loss = network(batch, 0.5)["loss"]
    parameters = [network.network.backbone.network.layer4[0].conv1.weight, network.network.head.weight]
    parameters.append(network.heads.layers[0].weight)
    gradients = torch.autograd.grad(loss, parameters)

    output = network.network(image)
    source = confident(output.scores, tags, 0.6)
    erased = erase(image, source, network.network.backbone.mean)
    second = network.network(erased)
    target = confident(second.scores, tags, 0.6)
    everywhere = torch.ones(B, 8, 8, dtype=torch.bool)
    logits = network.heads(output.features["stage4"], 2 / (1 + math.exp(-5)) - 1, everywhere)
    expected = torch.nn.functional.multilabel_soft_margin_loss(output.scores.mean(dim=(2, 3)), tags)
    expected = expected.double() + adversarial_by_loops(logits.double(), domain_labels(source, target))
    for seen, said, teaches in (
        (image, output, source),
        (erase(image, source, network.network.backbone.mean), second, target),
    ):
        small = resize(seen, (8, 8))
        labels = pseudo_labels(said.scores.detach(), small, tags, teaches)
        expected = expected + supervision_by_loops(output.scores.double(), labels)
    gap = abs(float(loss.detach()) - float(expected.detach()))
    gradient_gap = max(
        float((ours - theirs).abs().max() / theirs.abs().max())
        for ours, theirs in zip(gradients, torch.autograd.grad(expected, parameters), strict=True)
    )
    print(f"a whole step: loss differs by {gap:.1e}, gradients by {gradient_gap:.1e} of their largest")
    assert max(gap, gradient_gap) < 1e-5


@pytest.mark.parametrize("background", ["none", "image", "both"])
def test_supervision_uses_both_views_and_refined_maps(background: str) -> None:
    network, batch = learner("seam", adversary=0.0, background=background)
    output = network.network(batch["image"])
    source = confident(output.maps, batch["tags"], 0.6)
    assert not torch.equal(source, confident(output.scores, batch["tags"], 0.6))
    second = network.network(erase(batch["image"], source, network.network.backbone.mean))
    target = confident(second.maps, batch["tags"], 0.6)
    expected = 0
    for image, said, teaches, keeps in (
        (batch["image"], output, source, background != "none"),
        (erase(batch["image"], source, network.network.backbone.mean), second, target, background == "both"),
    ):
        small = resize(image, said.scores.shape[-2:])
        labels = pseudo_labels(said.scores, small, batch["tags"], teaches, background=keeps)
        expected = expected + supervision_loss(output.scores, labels)
    torch.testing.assert_close(network(batch, 0.5)["supervision"], expected)
