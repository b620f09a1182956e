"""The command export: write a trained network as one self-contained file."""

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plda import __version__
from plda.data.transforms import unit
from plda.errors import InputError
from plda.files import replacing
from plda.models.inference import fold_batch_norm
from plda.models.saved import Architecture, about, read_network, save_network
from plda.models.segmenters import SEGMENTER, Segmenter

LICENCE = (
    "Not stated. Rights in the training photos and in the initial weights may restrict the use of this "
    "network: ask its author."
)
PIXELS = "part of the network; its input is RGB from 0 to 255"
FLOATS = "part of the network; its input is RGB in [0, 1]"
TOLERANCE = 1e-3  # largest difference of ONNX and torch, as a fraction of the largest score (at least 1)
SHAPES = ((1, 64, 64), (2, 97, 130), (1, 150, 203))  # batch, height, width of the inputs that are compared
TRACED = (2, 128, 160)  # input for the export; it would treat sizes of 1 as constants


class FromPixels(nn.Module):
    """A segmentation network whose input is uint8 pixels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return class scores before softmax, (B, C, H, W), of (B, 3, H, W) uint8 RGB."""
        scores: Tensor = self.network(unit(image))
        return scores


def export(*, network: Path, out: Path, licence: str) -> None:
    """Write a trained network as one self-contained file: weights, classes, normalisation, licence.

    OUT ending in .onnx: for any program that runs ONNX. Input `image`, (batch, 3, height, width) uint8 RGB;
    output `scores`, (batch, classes, height, width) float32; batch, height and width are free. The network
    normalises its input. Classes, licence and the size for photos are in the file's metadata. Before the file
    is written, its scores are compared with torch's at several sizes.

    OUT ending in .pt: for `python -m plda predict` and TrainedNetwork, like the input network, with the same
    metadata under "about".
    """
    architecture, module = read_network(network, SEGMENTER)
    description = describe(architecture, module, about(network), licence)
    match out.suffix.lower():
        case ".onnx":
            fold_batch_norm(module.eval())
            difference = write_onnx(out, FromPixels(module).eval(), {**description, "normalisation": PIXELS})
            print(
                f"{out}: differs from torch by {difference:.0e} of the largest score or less", file=sys.stderr
            )
        case ".pt":
            save_network(out, architecture, module.state_dict(), {**description, "normalisation": FLOATS})
        case _:
            raise InputError(f"{out}: must end in .onnx or .pt, which sets the format")


def describe(
    architecture: Architecture, network: Segmenter, said: Mapping[str, Any], licence: str
) -> dict[str, Any]:
    """Return the metadata that a user of the network needs, as plain values.

    Args:
        architecture: architecture of the network.
        network: the network.
        said: metadata from the stage that trained the network.
        licence: terms of use of the network.
    """
    return {
        "classes": list(architecture.classes),
        "long_side": architecture.long_side,
        "size": "scale photos to a long side of long_side pixels, if long_side is known",
        "resizing": "bilinear, anti-aliased when photos shrink, as in training",
        "mean": network.backbone.mean.flatten().tolist(),
        "deviation": network.backbone.deviation.flatten().tolist(),
        "backbone": architecture.backbone,
        "first_weights": said.get("first_weights", {}),
        "head": architecture.head,
        "tagger": architecture.tagger.backbone if architecture.tagger else "none",
        "licence": licence,
        "made_by": f"plda {__version__}",
    }


def write_onnx(path: Path, network: FromPixels, about: dict[str, Any]) -> float:
    """Write a network as ONNX if its scores agree with those of torch.

    Args:
        path: the output file.
        network: in evaluation mode, on the CPU.
        about: the metadata; values that are not strings are written as JSON.

    Returns:
        The largest difference found, as a fraction of the largest score, or of 1 if that is smaller.

    Raises:
        InputError: packages are missing, or the scores differ by more than TOLERANCE.
    """
    runtime = _required("onnxruntime")
    _required("onnxscript")
    free = {axis: torch.export.Dim(name) for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    with torch.no_grad():  # layers have another form when gradients are on
        program = torch.onnx.export(
            network,
            (_noise(*TRACED),),
            input_names=["image"],
            output_names=["scores"],
            dynamic_shapes={"image": free},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    )
    with replacing(path) as temporary:
        program.save(temporary, external_data=False)
        session = runtime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        difference = largest_difference(network, lambda image: session.run(None, {"image": image})[0])
        if difference > TOLERANCE:
            raise InputError(
                f"{path}: not written: ONNX differs from torch by {difference:.1e} of the largest score, "
                f"or of 1; {TOLERANCE:.0e} is allowed"
            )
    return difference


@torch.no_grad()
def largest_difference(network: nn.Module, other: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return the largest difference of two networks on noise of several sizes.

    It is a fraction of the largest score, or of 1 if that is smaller.

    Args:
        network: maps (B, 3, H, W) uint8 RGB to scores (B, C, H, W).
        other: the other network, on arrays.
    """
    differences = []
    for shape in SHAPES:
        image = _noise(*shape)
        ours, theirs = network(image).numpy(), other(image.numpy())
        differences.append(float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max())))
    return max(differences)


def _noise(batch: int, height: int, width: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=random)


def _required(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"ONNX needs the package {package}: run `make export`, or outside a clone "
            f"`pip install onnxruntime onnxscript` ({error})"
        ) from error


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the flags of the command: the arguments of `export`."""
    command.add_argument(
        "--network", type=Path, required=True, metavar="FILE", help="network.pt of the stage train_segmenter"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="output file; must end in .onnx or .pt"
    )
    command.add_argument(
        "--licence",
        default=LICENCE,
        metavar="TEXT",
        help="terms of use of the network; default: a note that they are not stated",
    )
