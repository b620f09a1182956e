"""Compares the published training step with ours: SEAM on ResNet-38d, alone and with PLDA.

    PYTHONPATH=. python benchmarks/published_step.py [--threads 1] [--rounds 3] [--device cpu] [--tiny]

The reference follows the formulas of the research code: NCHW, float32, torch's layers; PLDA on both views,
each with a pass on its erased image; a loop over the classes for all parts of PLDA that are per class; PAMR
on all classes; domain heads over the whole map. It shares no code with ours. Both have the same first
weights, frozen batch norm as published, two of 20 tags, SGD, and adaptation in every step. Ours adapts one
view only, which is part of its savings. Ours runs in the environment that the command line sets, the
reference in the caller's environment. Prints the seconds of a step by wall clock and processor time (which
other processes disturb less; it is meaningless on a GPU), and the ratio of the reference to ours.

Every value is measured in a new process, in turn. Before that, a process checks that both compute the same:
with the same weights, input and tags (more tags than in the steps) and without dropout, each of the four
terms of SEAM's loss, and PLDA's two terms of the first view, must be above 0 and agree to 1e-4.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plda.__main__ import ENVIRONMENT
from plda.adaptation.learner import PUBLISHED, PldaLearner
from plda.compute.device import inference_dtype
from plda.models import resnet38d
from plda.models.backbones import Backbone
from plda.models.baselines import TagLearner
from plda.models.seam import SeamNetwork

CLASSES, STEPS, TOLERANCE, PROGRESS = 20, 3, 1e-4, 0.5
TINY = 16  # channels after conv1a; below, channels last, the backward pass of oneDNN 3.13 crashes
FORMS = ("published", "ours", "published, PLDA", "ours, PLDA", "ours, bf16", "ours, PLDA, bf16")
SOURCE, TARGET, IGNORED = 0, 1, 255
DILATIONS = (1, 2, 4, 8, 12, 24)
Part = dict[str, Tensor]


class Block(nn.Module):
    """A block of ResNet-38d: batch norm and ReLU before each convolution, and a skip connection."""

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        stride: int,
        dilations: Sequence[int],
        dropout: float,
        first: bool,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.names = ("2a", "2b1", "2b2")[: len(widths)]
        kernels = (3, 3) if len(widths) == 2 else (1, 3, 1)
        if first:
            self.conv_branch1 = nn.Conv2d(channels, widths[-1], 1, stride, bias=False)
        for name, kernel, width, dilation in zip(self.names, kernels, widths, dilations, strict=True):
            padding = dilation * (kernel // 2)
            convolution = nn.Conv2d(channels, width, kernel, stride, padding, dilation, bias=False)
            self.add_module(f"bn_branch{name}", nn.BatchNorm2d(channels))
            self.add_module(f"conv_branch{name}", convolution)
            channels, stride = width, 1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output, and its input after the first batch norm and ReLU."""
        a = branch = self.bn_branch2a(x).relu()
        around = self.conv_branch1(a) if hasattr(self, "conv_branch1") else x
        for name in self.names:
            if name != "2a":
                branch = getattr(self, f"bn_branch{name}")(branch).relu()
                branch = F.dropout2d(branch, self.dropout, self.training)
            branch = getattr(self, f"conv_branch{name}")(branch)
        return around + branch, a


class ResNet38d(nn.Module):
    """ResNet-38d at output stride 8; layers have their published names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1a = nn.Conv2d(3, width, 3, padding=1, bias=False)
        channels = width
        for level, blocks, widths, stride, dilations, dropout in (
            ("b2", 3, (2, 2), 2, (1, 1), 0.0),
            ("b3", 3, (4, 4), 2, (1, 1), 0.0),
            ("b4", 6, (8, 8), 2, (1, 1), 0.0),
            ("b5", 3, (8, 16), 1, (2, 2), 0.0),
            ("b6", 1, (8, 16, 32), 1, (1, 4, 1), 0.3),
            ("b7", 1, (16, 32, 64), 1, (1, 4, 1), 0.5),
        ):
            for i in range(blocks):
                spacing = (1, 2) if (level, i) == ("b5", 0) else dilations
                wide = [width * w for w in widths]
                block = Block(channels, wide, stride if i == 0 else 1, spacing, dropout, first=i == 0)
                self.add_module(f"{level}_{i}" if i else level, block)
                channels = wide[-1]
        self.bn7 = nn.BatchNorm2d(channels)
        self.widths = {"conv4": 8 * width, "conv5": 16 * width, "conv6": channels}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Part:
        """Return the features of (B, 3, H, W) images before b5, before b6 and at the end."""
        x, found = self.conv1a(x), {}
        for name, block in self.named_children():
            if isinstance(block, Block):
                x, before = block(x)
                found |= {"b5": {"conv4": before}, "b6": {"conv5": before}}.get(name, {})
        return {**found, "conv6": self.bn7(x).relu()}


class Reversal(torch.autograd.Function):
    """The identity; its gradient is multiplied by minus a strength."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


class Published(nn.Module):
    """SEAM, and the domain heads of PLDA."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = ResNet38d(width)
        channels = self.backbone.widths
        self.head = nn.Conv2d(channels["conv6"], CLASSES + 1, 1, bias=False)
        self.narrow4 = nn.Conv2d(channels["conv4"], 64, 1, bias=False)
        self.narrow5 = nn.Conv2d(channels["conv5"], 128, 1, bias=False)
        self.correlation = nn.Conv2d(3 + 64 + 128, 192, 1, bias=False)
        # scores like those of a trained network: with scores near 0, no pixel would be confident
        nn.init.normal_(self.head.weight, std=4 / channels["conv6"] ** 0.5)
        self.dropout = nn.Dropout2d(0.5)
        trunk = [nn.Conv2d(channels["conv6"], 1024, 1), nn.ReLU(), nn.Dropout(0.5)]
        self.trunk = nn.Sequential(*trunk, nn.Conv2d(1024, 512, 1), nn.ReLU(), nn.Dropout(0.5))
        self.heads = nn.ModuleList(nn.Conv2d(512, 2, 1) for _ in range(CLASSES))

    def train(self, mode: bool = True) -> "Published":
        """Set the mode; the backbone's batch norm stays in evaluation mode."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(False)
        return self

    def look(self, image: Tensor) -> Part:
        """Return features, scores with background first, and maps refined by pixel correlation."""
        features = self.backbone(image)
        scores = self.head(self.dropout(features["conv6"]))
        size = scores.shape[-2:]
        four, five = features["conv4"].detach(), features["conv5"].detach()
        parts = [resize(image, size), self.narrow4(resize(four, size)), self.narrow5(resize(five, size))]
        g = self.correlation(torch.cat([parts[0], parts[1].relu(), parts[2].relu()], dim=1)).flatten(2)
        g = g / (g.norm(dim=1, keepdim=True) + 1e-5)
        affinity = torch.matmul(g.transpose(1, 2), g).relu()
        affinity = affinity / (affinity.sum(dim=1, keepdim=True) + 1e-5)
        maps = scores[:, 1:].detach().relu()
        maps = only_highest(maps / (maps.amax(dim=(2, 3), keepdim=True) + 1e-5))
        refined = torch.matmul(maps.flatten(2), affinity).reshape(maps.shape)
        return {"features": features["conv6"], "scores": scores, "refined": refined}

    def seam(self, image: Tensor, small: Tensor, tags: Tensor) -> tuple[list[Part], Part]:
        """Return the outputs for both views and the four terms of SEAM's loss."""
        views = [self.look(image), self.look(small)]
        size = views[1]["scores"].shape[-2:]
        present = torch.cat([torch.ones_like(tags[:, :1]), tags], dim=1)[:, :, None, None]
        own, refined, tag_terms, least_terms = [], [], [], []
        for view in views:
            logits = F.adaptive_avg_pool2d(view["scores"][:, 1:], 1).flatten(1)
            tag_terms.append(F.multilabel_soft_margin_loss(logits, tags))
            shown = (view["refined"][:, 1:] * present[:, 1:]).amax(dim=1).flatten(1)
            least = shown.topk(max(1, shown.shape[1] // 4), largest=False).values
            least_terms.append(least.relu().mean())
            own.append(resize(stretched(view["scores"][:, 1:]), size) * present[:, 1:])
            refined.append(resize(stretched(view["refined"]), size) * present)
        cross = []
        for a, b in ((0, 1), (1, 0)):
            gap = (only_highest(own[b].detach()) - refined[a]).abs().flatten(1)
            cross.append(gap.topk(max(1, gap.shape[1] // 5)).values.mean())
        return views, {
            "tags": (tag_terms[0] + tag_terms[1]) / 2,
            "minimum": (least_terms[0] + least_terms[1]) / 2,
            "equivariance": (own[0] - own[1]).abs().mean(),
            "cross": cross[0] + cross[1],
        }

    def adaptation(self, view: Part, image: Tensor, tags: Tensor) -> Part:
        """Return L_uda and the sum of both L_cps of one view."""
        source = confident(view["refined"][:, 1:].detach(), tags)
        gone = source.any(dim=1, keepdim=True).float()
        erased = image * (1 - F.interpolate(gone, image.shape[-2:]))
        with torch.no_grad():
            second = self.look(erased)
        target = confident(second["refined"][:, 1:], tags)
        strength = 2 / (1 + float(torch.exp(torch.tensor(-10 * PROGRESS)))) - 1
        hidden = self.trunk(Reversal.apply(view["features"], strength))
        adversary = hidden.new_zeros(())
        for c, head in enumerate(self.heads):
            domain = torch.where(source[:, c], SOURCE, torch.where(target[:, c], TARGET, IGNORED))
            if (domain != IGNORED).any():
                adversary = adversary + domain_loss(head(hidden), domain)
        scores = view["scores"][:, 1:]
        of_source = pseudo_labels(scores.detach(), image, tags, source)
        of_target = pseudo_labels(second["scores"][:, 1:], erased, tags, target)
        supervision = supervision_loss(scores, of_source) + supervision_loss(scores, of_target)
        return {"adversary": adversary, "supervision": supervision}

    def loss(self, image: Tensor, tags: Tensor, plda: bool) -> Tensor:
        """Return the loss of a step; PLDA's terms are means over both views."""
        small = view_of(image)
        views, terms = self.seam(image, small, tags)
        total = sum(terms.values(), image.new_zeros(()))
        if plda:
            for view, seen in zip(views, (image, small), strict=True):
                terms = self.adaptation(view, seen, tags)
                total = total + (terms["adversary"] + terms["supervision"]) / 2
        return total


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False, antialias=True)


def view_of(image: Tensor) -> Tensor:
    """Return the second view."""
    return resize(image, [round(0.3 * side) for side in image.shape[-2:]])


def only_highest(maps: Tensor) -> Tensor:
    """Set classes that are not the pixel's highest to 0, and background to 1 minus the highest."""
    highest = maps.amax(dim=1, keepdim=True)
    return torch.cat([1 - highest, torch.where(maps == highest, maps, torch.zeros_like(maps))], dim=1)


def stretched(maps: Tensor) -> Tensor:
    """Stretch each map to [0, 1]."""
    maps = maps.relu()
    low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
    return (maps - low - 1e-5).relu() / (high - low + 1e-5)


def confident(maps: Tensor, tags: Tensor) -> Tensor:
    """Return the pixels where a tagged class responds strongly, class by class: (B, C, h, w) bool."""
    found = []
    for c in range(maps.shape[1]):
        found.append(stretched(maps[:, c : c + 1])[:, 0] * tags[:, c, None, None] > 0.6)
    return torch.stack(found, dim=1)


def domain_loss(logits: Tensor, domain: Tensor) -> Tensor:
    """Return L_uda of one class: logits (B, 2, h, w), domain (B, h, w)."""
    error = F.cross_entropy(logits, domain, ignore_index=IGNORED, reduction="none")
    p = logits.detach().softmax(dim=1)
    entropy = -(p * p.clamp(min=1e-30).log()).sum(dim=1)
    counts = [(domain == kind).sum(dim=(1, 2), keepdim=True) for kind in (SOURCE, TARGET)]
    weight = torch.zeros_like(error)
    for kind, count in zip((SOURCE, TARGET), counts, strict=True):
        balance = (sum(counts) - count) / (1 + sum(counts))
        weight = torch.where(domain == kind, balance, weight)
    return (error * (1 + torch.exp(-entropy)) * weight).mean()


def neighbours(x: Tensor) -> Tensor:
    """Return the 48 neighbours of each pixel: (B, K, h, w) to (B, K, 48, h, w)."""
    height, width = x.shape[-2:]
    found = []
    for d in DILATIONS:
        padded = F.pad(x, (d, d, d, d), mode="replicate")
        for dy, dx in product((0, d, 2 * d), repeat=2):
            if (dy, dx) != (d, d):
                found.append(padded[..., dy : dy + height, dx : dx + width])
    return torch.stack(found, dim=2)


def pamr(image: Tensor, maps: Tensor) -> Tensor:
    around, centre = neighbours(image), image[:, :, None]
    deviation = torch.cat([around, *[centre] * len(DILATIONS)], dim=2).std(dim=2, keepdim=True)
    distance = (around - centre).abs() / (1e-8 + 0.1 * deviation)
    affinity = torch.softmax(-distance.mean(dim=1), dim=1)[:, None]
    for _ in range(10):
        maps = (affinity * neighbours(maps)).sum(dim=2)
    return maps


def with_background(scores: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(scores[:, :1]), scores], dim=1)


@torch.no_grad()
def pseudo_labels(scores: Tensor, image: Tensor, tags: Tensor, teaches: Tensor) -> Tensor:
    """Return the classes (B, h, w) of the pixels in `teaches`, IGNORED elsewhere; never background."""
    mean = image.new_tensor((0.485, 0.456, 0.406))[:, None, None]
    deviation = image.new_tensor((0.229, 0.224, 0.225))[:, None, None]
    colours = resize((image * deviation + mean).clamp(0, 1), scores.shape[-2:])
    p = pamr(colours, with_background(scores).softmax(dim=1))
    claims = [p[:, 0] > (0.7 * p[:, 0].amax(dim=(1, 2), keepdim=True)).clamp(min=0.2)]
    for c in range(scores.shape[1]):
        of_class = p[:, c + 1] * tags[:, c, None, None]
        claims.append(of_class > (0.6 * of_class.amax(dim=(1, 2), keepdim=True)).clamp(min=0.2))
    alone = torch.stack(claims).sum(dim=0) == 1
    labels = torch.full_like(p[:, 0], IGNORED, dtype=torch.long)
    for c in range(scores.shape[1]):
        labels[claims[c + 1] & alone & teaches[:, c]] = c + 1
    return labels


def supervision_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return L_cps: labels are (B, h, w)."""
    error = F.cross_entropy(with_background(scores), labels, ignore_index=IGNORED, reduction="none")
    labelled = (labels != IGNORED).sum(dim=(1, 2), keepdim=True)
    weight = torch.zeros_like(error)
    for k in range(1, scores.shape[1] + 1):
        count = (labels == k).sum(dim=(1, 2), keepdim=True)
        weight = torch.where(labels == k, (labelled - count) / (1 + labelled), weight)
    return (error * weight).mean()


def build(options: argparse.Namespace) -> tuple[Published, PldaLearner, Tensor, Tensor]:
    """Return the reference, ours with its weights, a batch of blobs, RGB in [0, 1], and its tags."""
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    resnet38d.WIDTH = width = TINY if options.tiny else resnet38d.WIDTH
    image = resize(torch.rand(options.batch, 3, 8, 8), (options.side, options.side))
    tags = torch.zeros(options.batch, CLASSES)
    for i in range(options.batch):
        tags[i, [i % CLASSES, (i + 7) % CLASSES]] = 1
    reference = Published(width)
    norms = [m for m in reference.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    network = SeamNetwork(Backbone("resnet38d", output_stride=8, batch_norm="frozen"), CLASSES)
    with torch.no_grad():  # statistics like those of a trained network
        reference.backbone(network.backbone.normalise(image))
    network.backbone.load(reference.backbone.state_dict())
    learner = PldaLearner(network, CLASSES, PUBLISHED)
    pairs = [(network.head, reference.head), (network.narrow2, reference.narrow4)]
    pairs += [(network.narrow3, reference.narrow5), (network.correlation, reference.correlation)]
    with torch.no_grad():
        for mine, theirs in pairs:
            mine.weight.copy_(theirs.weight)
        first, second, last = (learner.heads.layers[i] for i in (0, 3, 6))
        for mine, theirs in ((first, reference.trunk[0]), (second, reference.trunk[3])):
            mine.weight.copy_(theirs.weight.flatten(1))
            mine.bias.copy_(theirs.bias)
        last.weight.copy_(torch.cat([head.weight.flatten(1) for head in reference.heads]))
        last.bias.copy_(torch.cat([head.bias for head in reference.heads]))
    device = options.device
    return reference.to(device), learner.to(device), image.to(device), tags.to(device)


def compare(options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Return each loss term of the reference and ours, in evaluation mode, which only turns dropout off."""
    reference, learner, image, tags = build(options)
    tags[:, ::3] = 1  # pseudo-labels of a single class would have weight 0
    with torch.no_grad():
        seen = learner.network.backbone.normalise(image)
        views, theirs = reference.eval().seam(seen, view_of(seen), tags)
        theirs |= reference.adaptation(views[0], seen, tags)
        ours = learner.eval()({"image": image, "tags": tags}, PROGRESS)
    return {name: (float(value), float(ours[name])) for name, value in theirs.items()}


def model_of(options: argparse.Namespace) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return the module that is trained in a form, and the function that computes its loss."""
    reference, learner, image, tags = build(options)
    plda, autocast = "PLDA" in options.form, "bf16" in options.form
    if options.form.startswith("published"):
        seen = learner.network.backbone.normalise(image)
        return reference, lambda: reference.loss(seen, tags, plda)
    model = learner if plda else TagLearner(learner.network)
    layout = learner.network.layout_on(image.device)
    model.to(memory_format=layout)
    batch = {"image": image.contiguous(memory_format=layout), "tags": tags}

    def loss() -> Tensor:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=autocast):
            return model(batch, PROGRESS)["loss"]

    return model, loss


def step(options: argparse.Namespace) -> tuple[float, float]:
    """Return the median seconds of a step of a form, and its processor time, without the first step."""
    model, loss = model_of(options)
    model.train()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-4, momentum=0.9, weight_decay=5e-4)
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter(), time.process_time()
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    assert value.isfinite()
    wall, cpu = zip(*seconds[1:], strict=True)
    return statistics.median(wall), statistics.median(cpu)


def measure(form: str) -> Any:
    """Measure a form in a new process."""
    environment = dict(os.environ) | ({} if form.startswith("published") else ENVIRONMENT)
    command = [sys.executable, *sys.argv, "--form", form]
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(said)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--side", type=int, help="pixels; 224, or 128 with --tiny")
    parser.add_argument("--tiny", action="store_true", help="a quarter of the channels, no bf16")
    parser.add_argument("--form", help="measure only one form", choices=("compare", *FORMS))
    options = parser.parse_args()
    options.side = options.side or (128 if options.tiny else 224)
    if options.form:
        print(json.dumps(compare(options) if options.form == "compare" else step(options)))
        return
    terms = measure("compare")
    for name, (theirs, ours) in terms.items():
        print(f"  {name:12} published {theirs:.6f}  ours {ours:.6f}  apart {abs(theirs - ours):.0e}")
    if not all(theirs > 0 and abs(theirs - ours) < TOLERANCE for theirs, ours in terms.values()):
        sys.exit("the losses differ, or are 0")
    bf16 = inference_dtype("auto", torch.device(options.device)) == torch.bfloat16 and not options.tiny
    forms = [form for form in FORMS if bf16 or "bf16" not in form]
    seconds: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    for _ in range(options.rounds):
        for form in forms:
            seconds[form].append(measure(form))
    print(
        f"resnet38d{', a quarter as wide' if options.tiny else ''}, {options.batch} images of "
        f"{options.side} px, {options.device}, {options.threads} threads, {options.rounds} rounds: "
        "a step, median (range)"
    )
    print(f"  {'':16} {'seconds':>8} {'':15} of CPU  published / ours, seconds and CPU")
    medians = {
        form: [statistics.median(v) for v in zip(*values, strict=True)] for form, values in seconds.items()
    }
    for form, values in seconds.items():
        (wall, cpu), walls = medians[form], [wall for wall, _ in values]
        shown = f"  {form:16} {wall:8.3f} {f'({min(walls):.3f}-{max(walls):.3f})':15} {cpu:6.3f}"
        if not form.startswith("published"):
            wall_there, cpu_there = medians["published, PLDA" if "PLDA" in form else "published"]
            shown += f"  {wall_there / wall:.2f} {cpu_there / cpu:.2f}"
        print(shown)


if __name__ == "__main__":
    main()
