"""Tests which of timm's networks work in the pipeline, from first weights to an ONNX file, on tiny inputs.

    PYTHONPATH=. python benchmarks/backbones.py [NAME ...]

One row per network: whether it can be built, trained for two steps with PLDA, saved and loaded with equal
outputs, and exported to ONNX with the same outputs as torch. Weights are random.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from plda.adaptation.learner import PUBLISHED, PldaLearner
from plda.models.backbones import Backbone, reading
from plda.models.baselines import CAM
from plda.models.inference import fold_batch_norm
from plda.models.saved import Architecture, load_network, save_network
from plda.models.segmenters import SEGMENTER
from plda.use.export import FromPixels, write_onnx

FAMILIES = {
    "ResNet": ["resnet10", "resnet10t", "resnet18", "resnet50", "resnet101", "seresnet50", "resnext50_32x4d"],
    "ResNetV2, NFNet": ["resnetv2_50", "nf_regnet_b1"],
    "MobileNet": ["mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_conv_small", "ghostnet_100"],
    "EfficientNet": ["efficientnet_b0", "tf_efficientnet_lite2", "tf_efficientnetv2_b0"],
    "RegNet": ["regnety_004", "regnetx_002"],
    "ConvNeXt": ["convnext_atto", "convnext_tiny", "convnextv2_atto"],
    "RepVGG": ["repvgg_a0", "mobileone_s0"],
    "ViT": ["vit_tiny_patch16_224", "vit_small_patch14_dinov2"],
    "Swin": ["swin_tiny_patch4_window7_224"],
    "of one size": ["levit_128", "mixer_s16_224", "maxvit_tiny_tf_224", "coatnet_0_rw_224"],
}  # fmt: skip
CLASSES = ("background", "cat", "dog")
PLDA = PUBLISHED.model_copy(update={"reversal": "constant", "features": "stage3"})
SIDE = 64  # pixels


def own_stride(name: str) -> int:
    """Return 16 if the network supports this output stride, else its default output stride."""
    try:
        return reading(name, 16).strides[-1]
    except ValueError:
        return reading(name).strides[-1]


def trained(name: str, stride: int, steps: int = 2) -> Sequence[float]:
    """Train a network for some steps with PLDA and return the losses; its weights must change.

    Raises:
        ValueError: a loss is not finite, or no weight changed.
    """
    network = CAM.build(Architecture("cam", name, stride, "trained", "cam", CLASSES))
    learner = PldaLearner(network, len(CLASSES) - 1, PLDA).train()
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=1e-3)
    before = [p.detach().clone() for p in network.backbone.parameters()]
    losses = []
    for _ in range(steps):
        batch = {"image": torch.rand(2, 3, SIDE, SIDE), "tags": torch.tensor([[1.0, 0], [1, 1]])}
        loss = learner(batch, 0.5)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    if not all(map(torch.isfinite, map(torch.tensor, losses))):
        raise ValueError(f"losses: {losses}")
    if all(torch.equal(old, new) for old, new in zip(before, network.backbone.parameters(), strict=True)):
        raise ValueError("no weight changed")
    return losses


@torch.no_grad()
def kept(name: str, stride: int, folder: Path) -> None:
    """Save and load a segmentation network; its outputs must be the same up to rounding.

    Raises:
        ValueError: the outputs differ.
    """
    architecture = Architecture("segmenter", name, stride, "frozen", "deeplabv2", CLASSES)
    network = SEGMENTER.build(architecture).eval()
    save_network(folder / "network.pt", architecture, network.state_dict())
    again = load_network(folder / "network.pt", SEGMENTER, CLASSES)
    image = torch.rand(1, 3, 65, 90)
    ours, theirs = network(image), again(image)
    if not torch.allclose(ours, theirs, rtol=0, atol=1e-4 * float(ours.abs().max())):
        raise ValueError("the loaded network has other outputs")


def exported(name: str, stride: int, folder: Path) -> float:
    """Return the difference between ONNX and torch; raises the errors of `write_onnx`."""
    architecture = Architecture("segmenter", name, stride, "frozen", "deeplabv2", CLASSES)
    network = SEGMENTER.build(architecture).eval()
    fold_batch_norm(network)
    return write_onnx(folder / "network.onnx", FromPixels(network).eval(), {})


def row(name: str) -> dict[str, str]:
    """Try each step with a network and return the results: "ok" or the error."""
    start = time.perf_counter()
    found = {"build": "", "PLDA": "", "file": "", "ONNX": ""}
    with tempfile.TemporaryDirectory() as folder:
        stride = 0

        def build() -> None:
            nonlocal stride
            stride = own_stride(name)
            Backbone(name, output_stride=stride)

        steps = {
            "build": build,
            "PLDA": lambda: trained(name, stride),
            "file": lambda: kept(name, stride, Path(folder)),
            "ONNX": lambda: exported(name, stride, Path(folder)),
        }
        for step, attempt in steps.items():
            try:
                attempt()
            except Exception as error:  # the table shows it
                found[step] = " ".join(str(error).split())[:160] or type(error).__name__
                if step == "build":
                    break
            else:
                found[step] = "ok"
    return {"stride": str(stride or ""), **found, "seconds": f"{time.perf_counter() - start:.0f}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names
    families = {"": names} if names else FAMILIES
    print("| family | network | stride | built | PLDA, 2 steps | file | ONNX | seconds |")
    print("|---|---|---:|---|---|---|---|---:|")
    for family, members in families.items():
        for name in members:
            print(f"| {family} | {name} | {' | '.join(row(name).values())} |", flush=True)
            print(name, file=sys.stderr)


if __name__ == "__main__":
    main()
