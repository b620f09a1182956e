"""Tests and measures a GPU with one command: correct results, speed, memory, profile.

    PYTHONPATH=. python benchmarks/gpu.py [--minutes 7] [--device cuda] [--out FILE.json]

Requires no network access and ends within the minutes. Each part runs in a separate process for a limited
time; a failure or timeout becomes a row of the table, and the other parts go on. Prints a table and writes it
as JSON; the status is 1 if a row failed. `--device cpu --tiny` does the same, small and in one process.

Data is drawn, weights are random. A result "apart" is the largest difference to the CPU's result, divided by
the CPU's largest value. Time outside the backbone is that of a step without the optimizer, minus that of the
backbone's calls in the step, repeated alone. Research code computes its maps for one image at a time in
float32; here its images are in memory before timing starts, but those of the stage are not.
"""

import argparse
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from benchmarks.backbones import own_stride
from plda.__main__ import ENVIRONMENT, STAGES, main, path_arguments, stage_function
from plda.adaptation.adversary import adversarial_loss, reverse_gradient
from plda.adaptation.domains import confident, domain_labels, erase
from plda.adaptation.learner import PUBLISHED, PldaLearner
from plda.adaptation.supervision import pseudo_labels, supervision_loss
from plda.data.data_set import DataSet
from plda.data.datasets import TaggedCrops
from plda.data.transforms import resize, unit
from plda.masks.cams import map_size, normalise_maps
from plda.models import resnet38d
from plda.models.backbones import Backbone
from plda.models.baselines import TagLearner, build_baseline
from plda.models.cam import CamNetwork
from plda.models.saved import Architecture, save_network
from plda.models.seam import cross_loss, equivariance_loss, minimum_loss, pixel_correlation, prepared
from plda.params import Params, check
from plda.refinement.affinity import affinities
from plda.refinement.pamr import pamr
from plda.refinement.walk import random_walk
from plda.training.checkpoints import Checkpoint
from plda.training.loop import train
from plda.training.sampler import BatchSampler
from plda.use.preset import FOLDER, preset_text

ROOT = Path(__file__).parents[1]
PRESET = "voc2012-cam-resnet50"
CLASSES = 20
NETWORKS = ("resnet10", "mobilenetv2_100", "resnet50", "resnet101", "tf_efficientnet_lite2", "convnext_tiny",
            "vit_small_patch14_dinov2", "resnet38d")  # fmt: skip
BEST = "bf16, channels-last"
FORMS = {  # bf16, channels last, TF32
    BEST: (True, True, True),
    "bf16": (True, False, True),
    "tf32": (False, False, True),
    "fp32": (False, False, False),
}
KINDS = ("cam", "cam + PLDA", "seam", "seam + PLDA")
PLDA_AIM, INFERENCE_AIM = 1.35, 5.0
Options = argparse.Namespace


def say(what: str, value: float | str = "", unit: str = "", *, ok: bool = True, **more: str) -> None:
    """Print a row of the table, for the process that collects the rows."""
    value = float(f"{value:.4g}") if isinstance(value, float) else value
    row = {"part": say.part, "what": what, "value": value, "unit": unit, "failed": not ok, **more}
    print(json.dumps(row), flush=True)


@contextmanager
def row(what: str) -> Iterator[None]:
    """Turn an exception inside the block into a row."""
    try:
        yield
    except Exception as error:
        lines = str(error).splitlines() or [""]
        say(what, f"{type(error).__name__}: {lines[0][:150]}", ok=False)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def late(options: Options, what: str) -> bool:
    """Return whether the part's time is over; if so, print a row that says what is skipped."""
    if time.monotonic() < options.until:
        return False
    say(what, "left out: no time left")
    return True


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Return the median seconds, after two warm-up runs."""
    seconds = []
    for _ in range(repeats + 2):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


def allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def blobs(*shape: int, seed: int = 0) -> Tensor:
    """Return random images in which neighbouring pixels are similar."""
    coarse = torch.randn(*shape[:-2], 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, shape[-2:], mode="bicubic")


def tags_of(batch: int, classes: int) -> Tensor:
    tags = torch.zeros(batch, classes)
    for i in range(batch):
        tags[i, [i % classes, (i + 2) % classes]] = 1
    return tags


def apart(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest expected value; for bool and labels, the error rate."""
    if not expected.is_floating_point():
        return float((found.cpu() != expected).double().mean())
    return float((found.cpu().double() - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def worst(differences: Iterable[float]) -> float:
    """Return the largest difference, or NaN if one is NaN."""
    return float(torch.tensor(list(differences), dtype=torch.float64).max())


def formulas(options: Options) -> None:
    """Compare each formula on the device, in float64 and float32, with the CPU in float64."""
    maps, image = blobs(2, 5, 28, 30), blobs(2, 3, 28, 30, seed=1)
    tags, scores = tags_of(2, 5), 2 * maps
    teaches = confident(maps, tags, 0.3)
    domains = domain_labels(teaches, confident(blobs(2, 5, 28, 30, seed=2), tags, 0.3))
    colours, boundary = image.sigmoid(), blobs(2, 1, 28, 30, seed=3).sigmoid()
    labels = pseudo_labels(scores, colours, tags, teaches)
    shown, foreground = maps.sigmoid(), blobs(2, 4, 28, 30, seed=4).sigmoid()
    cases: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
        "confident": (lambda m, t: confident(m, t, 0.6), (maps, tags)),
        "erase": (erase, (image, teaches, torch.zeros(3, 1, 1, dtype=image.dtype))),
        "domain_labels": (domain_labels, (teaches, teaches.flip(0))),
        "pseudo_labels": (pseudo_labels, (scores, colours, tags, teaches)),
        "adversarial_loss": (adversarial_loss, (blobs(2, 10, 28, 30).view(2, 5, 2, 28, 30), domains)),
        "supervision_loss": (supervision_loss, (scores, labels)),
        "reverse_gradient": (lambda x: (reverse_gradient(x, 0.7) ** 2).mean(), (maps,)),
        "pamr": (lambda m, i: pamr(i, m), (shown, colours)),
        "prepared": (prepared, (maps,)),
        "pixel_correlation": (pixel_correlation, (shown, blobs(2, 16, 28, 30))),
        "minimum_loss": (minimum_loss, (shown, tags)),
        "equivariance_loss": (equivariance_loss, (shown, shown.flip(0))),
        "cross_loss": (lambda r, m: cross_loss(m, r), (shown, foreground)),
        "multilabel loss": (F.multilabel_soft_margin_loss, (maps.mean(dim=(2, 3)), tags)),
        "affinities": (lambda b: torch.cat([a.flatten() for _, a in affinities(b, 5)]), (boundary,)),
        "random_walk": (random_walk, (shown, boundary)),
    }
    allow_tf32(False)
    for name, (function, given) in cases.items():
        expected = with_gradient(function, given, torch.device("cpu"), torch.float64)
        for dtype, most in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            what = f"{name} in {str(dtype).removeprefix('torch.')}"
            with row(what):
                found = with_gradient(function, given, options.device, dtype)
                difference = worst(apart(f, e) for f, e in zip(found, expected, strict=True))
                # a pixel may be on the other side of a threshold
                most_here = most if expected[0].is_floating_point() else 2e-3
                say(what, difference, "apart", ok=difference <= most_here, aim=f"<= {most_here:g}")


def with_gradient(
    function: Callable[..., Tensor], given: tuple[Tensor, ...], device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """Return the function's result, and for a scalar the gradient of its first argument."""
    arguments = [x.to(device, dtype) if x.is_floating_point() else x.to(device) for x in given]
    arguments[0] = arguments[0].clone()
    if arguments[0].is_floating_point():
        arguments[0].requires_grad_()
    said = function(*arguments)
    if said.ndim or not said.requires_grad:
        return [said.detach()]
    said.backward()
    assert arguments[0].grad is not None
    return [said.detach(), arguments[0].grad]


def backbones(options: Options) -> None:
    """Compare the features of each network on the device with the CPU, in float32."""
    allow_tf32(False)
    side = 64 if options.tiny else 224
    names = NETWORKS[:2] if options.tiny else NETWORKS
    for name in names:
        if late(options, name):
            continue
        with row(name), torch.no_grad():
            torch.manual_seed(0)
            network, image = Backbone(name, output_stride=own_stride(name)).eval(), blobs(1, 3, side, side)
            expected = network(image)
            found = network.to(options.device)(image.to(options.device))
            difference = worst(apart(found[stage], expected[stage].double()) for stage in expected)
            say(f"{name} at {side} px", difference, "apart", ok=difference < 1e-3, aim="< 0.001")


class Blobs(Dataset[dict[str, Tensor]]):
    """Twelve images; each depends only on its index."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Tensor]:
        return {"image": blobs(1, 3, 64, 64, seed=item[1])[0], "tags": tags_of(12, 5)[item[1]]}


class Broken(Checkpoint):
    """A checkpoint that interrupts the training after its second state is saved."""

    saved = 0

    def save(self, state: dict[str, Any]) -> None:
        super().save(state)
        self.saved += 1
        if self.saved == 2:
            raise InterruptedError


def trained(
    options: Options, learner: nn.Module, checkpoint: Checkpoint, devices: int
) -> Mapping[str, Tensor]:
    """Train for four epochs and return the weights."""
    changes = {"epochs": 4, "batch_size": 4, "crop": 64, "optimizer": "sgd", "lr": 0.01}
    params = params_of(
        options, train_cam=changes, compute={"devices": devices, "workers": 0, "precision": "32"}
    )
    result = {}
    settings = check(Params, params, "benchmark")
    train(
        learner,
        Blobs(),
        settings=settings.train_cam,
        seed=0,
        compute=settings.compute,
        checkpoint=checkpoint,
        write=lambda weights, _: result.update(weights),
    )
    return result


def training(options: Options) -> None:
    """Compare an interrupted training, and one with two processes, with an uninterrupted one."""
    at = Path(tempfile.mkdtemp(dir=options.folder))
    torch.backends.cudnn.deterministic = True
    allow_tf32(False)

    def learner(adapts: bool) -> nn.Module:
        torch.manual_seed(0)
        network = CamNetwork(Backbone("resnet10", batch_norm="frozen"), 5)
        return PldaLearner(network, 5, PUBLISHED) if adapts else TagLearner(network)

    most = 0.0 if options.device.type == "cpu" else 1e-3  # a GPU sums in any order
    with row("resumed against unbroken"):
        whole = trained(options, learner(True), Checkpoint(at / "whole"), 1)
        try:
            trained(options, learner(True), Broken(at / "broken"), 1)
        except InterruptedError:
            assert (at / "broken" / "last.pt").exists()
        resumed = trained(options, learner(True), Checkpoint(at / "broken"), 1)
        difference = worst(apart(resumed[name], whole[name].double()) for name in whole)
        say("resumed against unbroken", difference, "apart", ok=difference <= most, aim=f"<= {most:g}")
    if options.device.type == "cuda" and torch.cuda.device_count() < 2:
        say("two processes against one", "left out: one GPU")
        return
    with row("two processes against one"):
        alone = trained(options, learner(False), Checkpoint(at / "alone"), 1)
        shared = trained(options, learner(False), Checkpoint(at / "shared"), 2)
        difference = worst(apart(shared[name], alone[name].double()) for name in alone)
        say("two processes against one", difference, "apart", ok=difference < 1e-3, aim="< 0.001")


def params_of(options: Options, **changes: dict[str, Any]) -> dict[str, Any]:
    """Return params.yaml with some values of some sections changed."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["compute"]["device"] = options.device.type
    for section, values in changes.items():
        params[section] |= values
    return params


def run_stage(name: str, params: Path, folder: Path, here: bool) -> float:
    """Run a stage on the files of a folder, in this process or a new one, and return its seconds."""
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["vars"][0]
    paths = {key: folder / Path(path).relative_to("results/main") for key, path in declared.items()}
    paths |= {"table": ROOT / "workflow" / "archives.yaml", "checkpoints": folder / "checkpoints"}
    flags = ["--params", str(params)]
    for key in path_arguments(stage_function(name)):
        paths[key].parent.mkdir(parents=True, exist_ok=True)
        flags += [f"--{key.replace('_', '-')}", str(paths[key])]
    began = time.perf_counter()
    if here:
        with redirect_stderr(io.StringIO()) as said:
            status = main([name, *flags])
        words = said.getvalue()
    else:
        command = [sys.executable, "-m", "plda", name, *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        status, words = done.returncode, done.stderr
    if status:
        raise RuntimeError(f"status {status}: {' '.join(words.strip().splitlines()[-1:])}")
    return time.perf_counter() - began


def pipeline(options: Options) -> None:
    """Run all stages with the default params and print seconds and scores."""
    changes: dict[str, dict[str, Any]] = {}
    if options.tiny:
        drawn = params_of(options)["index_data"]["creatures"] | {"train": 16, "val": 4, "size": 64}
        few = {"epochs": 1, "batch_size": 4, "crop": 64}
        changes = {"index_data": {"creatures": drawn}, "train_cam": few}
        changes |= {"relabel_masks": few, "train_segmenter": few}
        changes["compute"] = {"workers": 0}
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(params_of(options, **changes)))
    total = 0.0
    for name in STAGES:
        with row(name):
            seconds = run_stage(name, params, folder, here=options.tiny)
            total += seconds
            say(name, seconds, "s")
    say("all stages", total, "s")
    for stage, masks in (
        ("evaluate_cams", "seeds"),
        ("evaluate_cams", "pseudo_masks"),
        ("evaluate", "predictions"),
    ):
        with row(f"mIoU of {masks}"):
            metrics = json.loads((folder / stage / "metrics.json").read_text())
            say(f"mIoU of {masks}", float(metrics[masks]["miou"]), "%")


def learner_of(options: Options, kind: str, backbone: str) -> nn.Module:
    if options.tiny:
        resnet38d.WIDTH = 16
        backbone = "resnet10" if backbone == "resnet50" else backbone
    torch.manual_seed(0)
    stride = 8 if backbone == "resnet38d" else 16
    body = Backbone(backbone, output_stride=stride, batch_norm="frozen")
    network = build_baseline(kind.split()[0], body, CLASSES)
    # scores like those of a trained network: with scores near 0, no pixel would be confident
    nn.init.normal_(network.head.weight, std=0.1)
    return PldaLearner(network, CLASSES, PUBLISHED) if "PLDA" in kind else TagLearner(network)


def made(
    options: Options, kind: str, backbone: str, form: str, batch: int
) -> tuple[nn.Module, dict[str, Tensor], Callable[[], Tensor]]:
    """Return a learner, its batch, and the function that computes its loss."""
    bf16, channels_last, tf32 = FORMS[form]
    allow_tf32(tf32)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    learner = learner_of(options, kind, backbone).to(options.device, memory_format=layout).train()
    side = 64 if options.tiny else 448
    image = blobs(batch, 3, side, side).to(options.device).contiguous(memory_format=layout)
    given = {"image": image, "tags": tags_of(batch, CLASSES).to(options.device)}

    def loss(seen: dict[str, Tensor] = given) -> Tensor:
        with torch.autocast(options.device.type, torch.bfloat16, enabled=bf16):
            value: Tensor = learner(seen, 0.5)["loss"]
            return value

    return learner, given, loss


def step_of(learner: nn.Module, loss: Callable[..., Tensor]) -> Callable[..., None]:
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)

    def step(*given: dict[str, Tensor]) -> None:
        value = loss(*given)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def measure_step(
    options: Options, kind: str, backbone: str, form: str, batch: int, **more: str
) -> float | None:
    """Measure a training step, print its rows, and return its seconds."""
    what = f"{kind}, {form}{more.get('how', '')}"
    if late(options, what):
        return None
    seconds = None
    with row(what):
        learner, _, loss = made(options, kind, backbone, form, batch)
        if more:
            learner.network.backbone.compile(backend="eager" if options.tiny else "inductor")
        if options.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = seconds_of(step_of(learner, loss), options.device, repeats=1 if options.tiny else 5)
        say(what, batch / seconds, "images/s")
        if options.device.type == "cuda":
            say(what, torch.cuda.max_memory_allocated() / 2**30, "GiB at most")
    return seconds


def steps(options: Options, backbone: str, batch: int) -> None:
    """Measure training steps in each form, the fastest form first."""
    for form in list(FORMS)[: 1 if options.tiny and backbone == "resnet38d" else None]:
        taken = {kind: measure_step(options, kind, backbone, form, batch) for kind in KINDS}
        for baseline in ("cam", "seam"):
            alone, adapted = taken[baseline], taken[f"{baseline} + PLDA"]
            if alone and adapted:
                aim = {"aim": f"<= {PLDA_AIM}"} if "bf16" in form else {}
                say(f"{form}: PLDA over {baseline} alone", adapted / alone, "times as long", **aim)


def steps_resnet50(options: Options) -> None:
    steps(options, "resnet50", 2 if options.tiny else 16)


def steps_resnet38d(options: Options) -> None:
    steps(options, "resnet38d", 2 if options.tiny else 8)


def compiled(options: Options) -> None:
    """Measure training steps with a backbone compiled by torch.compile."""
    for kind in ("cam", "cam + PLDA"):
        measure_step(options, kind, "resnet50", BEST, 2 if options.tiny else 16, how=", compiled")


def photos(options: Options) -> Path:
    """Return a folder with an indexed data set of drawn images of 500 x 375 pixels."""
    if not hasattr(options, "photos"):
        options.photos = drawn_photos(options)
    folder: Path = options.photos
    return folder


def drawn_photos(options: Options) -> Path:
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    source = folder / "photos"
    source.mkdir()
    count, size = (5, (125, 94)) if options.tiny else (257, (500, 375))
    lines = ["image,split,tags,mask"]
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(source / f"{i}.jpg")
        split = "val" if i == 0 else "train"
        lines.append(f"{i}.jpg,{split},class {i % CLASSES};class {(i + 7) % CLASSES},")
    (source / "tags.csv").write_text("\n".join(lines) + "\n")
    names = ["background", *(f"class {i}" for i in range(CLASSES))]
    (source / "classes.txt").write_text("\n".join(names) + "\n")
    preset = yaml.safe_load(preset_text(PRESET, folder=ROOT / FOLDER))["infer_cams"]
    params = params_of(options, index_data={"folder": str(source)}, infer_cams=preset) | {"source": "folder"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for name in ("download_data", "index_data"):
        run_stage(name, folder / "params.yaml", folder, here=True)
    return folder


def inference(options: Options) -> None:
    """Measure maps at the preset's scales, mirrored: by the stage, and one image at a time in float32."""
    folder = photos(options)
    scales = yaml.safe_load(preset_text(PRESET, folder=ROOT / FOLDER))["infer_cams"]["scales"]
    data = DataSet(folder / "index_data" / "data_set")
    entries = data.training
    network = learner_of(options, "cam", "resnet50").network
    kind = "resnet10" if options.tiny else "resnet50"
    (folder / "train_cam").mkdir()
    described = Architecture("cam", kind, 16, "frozen", "cam", data.classes)
    save_network(folder / "train_cam" / "network.pt", described, network.state_dict())
    speeds = {}
    with row("the stage infer_cams"):
        run = [run_stage("infer_cams", folder / "params.yaml", folder, here=True) for _ in range(2)]
        speeds["stage"] = len(entries) / run[1]
        say("the stage infer_cams", speeds["stage"], "images/s")
    network.to(options.device).eval()
    images = [(*e.size, data.image(e)) for e in entries[: 4 if options.tiny else 32]]

    @torch.no_grad()
    def one_by_one() -> None:
        for height, width, image in images:
            size, total = map_size(height, width), []
            for scale in scales:
                x = unit(image.to(options.device))[None]
                x = resize(x, (max(32, round(height * scale)), max(32, round(width * scale))))
                maps = network(torch.cat([x, x.flip(-1)])).maps
                total.append(resize(maps[:1], size) + resize(maps[1:], size).flip(-1))
            normalise_maps(torch.cat(total).mean(dim=0)).cpu()

    for what, allowed in (("float32", False), ("float32, TF32 allowed", True)):
        with row(f"one image at a time, {what}"):
            allow_tf32(allowed)
            speeds[what] = len(images) / seconds_of(one_by_one, options.device, repeats=1)
            say(f"one image at a time, {what}", speeds[what], "images/s")
    if {"stage", "float32"} <= speeds.keys():
        ratio = speeds["stage"] / speeds["float32"]
        say("the stage over one image at a time", ratio, "times as fast", aim=f">= {INFERENCE_AIM:g}")


def refinement(options: Options) -> None:
    """Measure random walk and PAMR of three maps of 94 x 125 pixels."""
    size = (24, 32) if options.tiny else (94, 125)
    maps, image, boundary = (blobs(1, channels, *size).sigmoid().to(options.device) for channels in (3, 3, 1))
    for name, work in {
        "random walk": lambda: random_walk(maps, boundary),
        "PAMR": lambda: pamr(image, maps),
    }.items():
        with row(name):
            say(name, 1000 * seconds_of(work, options.device, repeats=3), "ms")


def loading(options: Options) -> None:
    """Measure how long the device waits for images."""
    folder, batch = photos(options), 2 if options.tiny else 16
    crop = {"crop": 64 if options.tiny else 448, "batch_size": batch}
    settings = check(Params, params_of(options, train_cam=crop), "benchmark").train_cam
    data = TaggedCrops(DataSet(folder / "index_data" / "data_set"), settings, 0)
    learner, _, loss = made(options, "cam + PLDA", "resnet50", BEST, batch)
    step, device = step_of(learner, loss), options.device
    pure = seconds_of(step, device)
    for workers in (0, 1) if options.tiny else (0, 4, 12):
        what = f"share of time idle, {workers} workers"
        if late(options, what):
            continue
        with row(what):
            order = BatchSampler(len(data), batch, 2, 0)
            loader = DataLoader(
                data, batch_sampler=order, num_workers=workers, pin_memory=device.type == "cuda"
            )
            began, count = 0.0, -1
            for given in loader:
                moved = {name: x.to(device, non_blocking=True) for name, x in given.items()}
                step(moved | {"image": moved["image"].contiguous(memory_format=torch.channels_last)})
                synchronize(device)
                count += 1
                began = began or time.perf_counter()  # the first step is not counted: workers start
            looped = (time.perf_counter() - began) / count
            say(what, max(0.0, 100 * (1 - pure / looped)), "%")


def profiled(options: Options) -> None:
    """Profile a step with PLDA."""
    for kind in ("cam + PLDA", "seam + PLDA"):
        with row(kind):
            profile_of(options, kind)


def profile_of(options: Options, kind: str) -> None:
    device = options.device
    learner, _, loss = made(options, kind, "resnet50", BEST, 2 if options.tiny else 16)
    body = learner.network.backbone
    calls: list[tuple[Tensor, bool]] = []
    hook = body.register_forward_pre_hook(
        lambda _, given: calls.append((given[0].detach(), torch.is_grad_enabled()))
    )
    loss()
    hook.remove()

    def alone() -> None:
        for image, learns in calls:
            with torch.set_grad_enabled(learns), torch.autocast(device.type, torch.bfloat16):
                last = list(body(image).values())[-1]
            if learns:
                last.backward(torch.ones_like(last))

    whole, operations = busy(lambda: loss().backward(), device)
    share = 100 * (1 - busy(alone, device)[0] / whole)
    say(f"{kind}: time outside the backbone", share, "% of the step's device time")
    for operation in operations[:10]:
        say(f"{kind}: {operation.key[:38]}", own_time(operation, device), f"ms, {operation.count} calls")


def busy(work: Callable[[], object], device: torch.device) -> tuple[float, list[Any]]:
    """Return device time in ms, and the operations, the most expensive first."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    work()
    with profile(activities=activities) as recorded:
        work()
        synchronize(device)
    # kernels are listed besides the operations that launch them, which include their time
    found = [e for e in recorded.key_averages() if str(e.device_type).endswith("CPU")]
    found.sort(key=lambda e: own_time(e, device), reverse=True)
    return sum(own_time(e, device) for e in found), found


def own_time(operation: Any, device: torch.device) -> float:
    """Return the milliseconds of an operation, without the operations that it calls."""
    kind = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return float(getattr(operation, kind)) / 1000


PARTS: dict[str, tuple[Callable[[Options], None], int]] = {  # maximum seconds of each part, of 7 minutes
    "formulas": (formulas, 60),
    "backbones": (backbones, 60),
    "training": (training, 60),
    "pipeline": (pipeline, 150),
    "steps, resnet50": (steps_resnet50, 60),
    "inference": (inference, 60),
    "steps, resnet38d": (steps_resnet38d, 60),
    "refinement": (refinement, 30),
    "profile": (profiled, 40),
    "loading": (loading, 60),
    "compile": (compiled, 90),
}


def run_parts(options: Options) -> None:
    """Run some parts in this process; their rows go to standard output."""
    for name in options.part:
        say.part = name
        with row(name):
            PARTS[name][0](options)


def collected(names: list[str], seconds: float) -> list[dict[str, Any]]:
    """Run some parts in a new process, stop it after some seconds, and return its rows."""
    flags = [text for name in names for text in ("--part", name)]
    command = [sys.executable, *sys.argv, "--seconds", str(seconds), *flags]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    failed = ""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(
            command, stdout=said, stderr=words, env=environment, start_new_session=True
        )
        try:
            status = process.wait(seconds)
            words.seek(0)
            failed = f"status {status}: {words.read().strip()[-150:]}" if status else ""
        except subprocess.TimeoutExpired:
            failed = f"stopped after {seconds:.0f} s"
        finally:
            with suppress(ProcessLookupError):  # including its child processes
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        rows = [json.loads(line) for line in said if line.startswith("{") and line.endswith("}\n")]
    told = {row["part"] for row in rows}
    if failed:
        rows.append(
            {"part": rows[-1]["part"] if rows else names[0], "what": "", "value": failed, "failed": True}
        )
    return rows + [
        {"part": name, "what": "", "value": "no result", "failed": True}
        for name in names
        if name not in told and not failed
    ]


def show(row: Mapping[str, Any]) -> None:
    value = f"{row['value']:.4g}" if isinstance(row["value"], float) else str(row["value"])
    aim = f"  aim {row['aim']}" if row.get("aim") else ""
    mark = "FAILED" if row["failed"] else ""
    print(
        f"{row['part']:17} {row['what']:52} {value:>9} {row.get('unit', '')}{aim}  {mark}".rstrip(),
        flush=True,
    )


def command_line() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes, all in one process")
    parser.add_argument("--out", type=Path, help="output: JSON file")
    parser.add_argument("--part", action="append", choices=PARTS, help="run only this part; can be repeated")
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seconds:
        options.until = time.monotonic() + 0.8 * options.seconds
        with tempfile.TemporaryDirectory() as options.folder:
            run_parts(options)
        return 0
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; use --device cpu --tiny to run without one")
    end, rows = time.monotonic() + 60 * options.minutes, []
    name = torch.cuda.get_device_name() if options.device.type == "cuda" else options.device.type
    print(f"{name}, torch {torch.__version__}, {os.cpu_count()} processors")
    chosen = options.part or list(PARTS)
    sys.argv = [text for text in sys.argv if text not in ("--part", *PARTS)]
    for names in [chosen] if options.tiny else [[part] for part in chosen]:
        left = end - time.monotonic() - 5
        most = left if options.tiny else min(left, max(10, PARTS[names[0]][1] * options.minutes / 7))
        if most < 10:
            found = [
                {"part": part, "what": "", "value": "left out: no time left", "failed": False}
                for part in names
            ]
        else:
            found = collected(names, most)
        for each in found:
            show(each)
        rows += found
    if options.out:
        about = {"device": name, "torch": torch.__version__, "processors": os.cpu_count()}
        options.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    return int(any(each["failed"] for each in rows))


if __name__ == "__main__":
    sys.exit(command_line())
