"""Measures what PLDA adds to a training step: time and peak memory relative to the baseline alone.

    PYTHONPATH=. python benchmarks/plda_step.py [--threads 1] [--rounds 3] [--device cpu]

For cam and seam, with adaptation active (no warm-up), in the published form and with background pixels kept:
prints the median of the ratios *PLDA / baseline* over the rounds, and their range. Every value is measured in
a new process. Memory is the peak during the steps minus the memory of the process before them.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from plda.__main__ import ENVIRONMENT

STEPS = 6
FORMS = {"published": "none", "background kept": "image"}


def step(options: argparse.Namespace) -> tuple[float, float]:
    """Return the median seconds of a step, and MiB."""
    import torch

    from plda.adaptation.learner import PUBLISHED, PldaLearner
    from plda.models.backbones import Backbone
    from plda.models.baselines import TagLearner, build_baseline

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    classes, device = 6, torch.device(options.device)
    backbone = Backbone(options.backbone, output_stride=options.output_stride)
    network = build_baseline(options.baseline, backbone, classes)
    # scores like those of a trained network: with scores near 0, no pixel would be confident
    torch.nn.init.normal_(network.head.weight, std=0.1)
    if options.background == "off":
        learner = TagLearner(network)
    else:
        settings = PUBLISHED.model_copy(update={"background": options.background})
        learner = PldaLearner(network, classes, settings)
    learner = learner.to(device, memory_format=torch.channels_last).train()
    image = torch.nn.functional.interpolate(  # blobs, so that neighbouring pixels are similar
        torch.randn(options.batch, 3, 8, 8), (options.side, options.side), mode="bicubic"
    )
    tags = torch.zeros(options.batch, classes)
    tags[torch.arange(options.batch), torch.arange(options.batch) % classes] = 1
    tags[::2, 0] = 1
    batch = {"image": image.to(device, memory_format=torch.channels_last), "tags": tags.to(device)}
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-4)
    before, seconds = held(device), []
    for _ in range(STEPS):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            loss = learner(batch, 0.5)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]), held(device) - before


def held(device: object) -> float:
    """Return the peak memory of this process so far, in MiB."""
    import torch

    if str(device).startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(baseline: str, background: str) -> tuple[float, float]:
    command = [sys.executable, *sys.argv, "--baseline", baseline, "--background", background]
    environment = {**os.environ, **ENVIRONMENT}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    seconds, memory = json.loads(said)
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--backbone", default="resnet10")
    parser.add_argument("--output-stride", type=int, default=16)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--baseline", help=argparse.SUPPRESS)
    parser.add_argument("--background", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.baseline:
        print(json.dumps(step(options)))
        return
    print(
        f"{options.backbone}, stride {options.output_stride}, {options.batch} images of {options.side} px, "
        f"{options.device}, {options.threads} threads, {options.rounds} rounds: "
        "PLDA / baseline, median (range)"
    )
    for baseline in ("cam", "seam"):
        ratios: dict[str, list[tuple[float, float]]] = {form: [] for form in FORMS}
        plain = []
        for _ in range(options.rounds):
            seconds, memory = measure(baseline, "off")
            plain.append((seconds, memory))
            for form, background in FORMS.items():
                with_plda = measure(baseline, background)
                ratios[form].append((with_plda[0] / seconds, with_plda[1] / memory))
        seconds, memory = (statistics.median(values) for values in zip(*plain, strict=True))
        speed = options.batch / seconds
        print(f"  {baseline:5} alone: {seconds:.3f} s, {speed:.1f} images/s, {memory:.0f} MiB")
        for form, values in ratios.items():
            shown = [
                f"{name} {statistics.median(v):.2f} ({min(v):.2f}-{max(v):.2f})"
                for name, v in zip(("time", "memory"), zip(*values, strict=True), strict=True)
            ]
            print(f"  {baseline:5} {form:16} {', '.join(shown)}")


if __name__ == "__main__":
    main()
