"""The command export: a trained network as one file that says all that its user must know."""

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
    "Not stated. Rights in the photos that it learnt from and in the weights that its training began with "
    "may bind whoever uses this network: ask who made it."
)
PIXELS = "part of the network, which takes pixels from 0 to 255"
FLOATS = "part of the network, which takes RGB in [0, 1]"
TOLERANCE = 1e-3  # of the largest score, or of 1 if that is smaller: ONNX's may be so far from torch's
SHAPES = ((1, 64, 64), (2, 97, 130), (1, 150, 203))  # batch, height, width at which they are compared
TRACED = (2, 128, 160)  # another; sizes of 1 would be taken for constants


class FromPixels(nn.Module):
    """A segmentation network that takes pixels as they are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB to class scores, (B, C, H, W), before any softmax."""
        scores: Tensor = self.network(unit(image))
        return scores


def export(*, network: Path, out: Path, licence: str) -> None:
    """Write a trained network as one file that needs no other: weights, classes, normalisation, licence.

    OUT ending in .onnx: for any program that runs ONNX. Input `image`, (batch, 3, height, width) uint8 RGB;
    output `scores`, (batch, classes, height, width) float32; batch, height and width are free. It normalises
    by itself; classes, licence and the size at which to show it photos are in the file's metadata. Before it
    is written, what it says is compared with what torch says, at several sizes.

    OUT ending in .pt: for `python -m plda predict` and TrainedNetwork, like the network that went in, with
    the same said under "about".
    """
    architecture, module = read_network(network, SEGMENTER)
    description = describe(architecture, module, about(network), licence)
    match out.suffix.lower():
        case ".onnx":
            fold_batch_norm(module.eval())
            difference = write_onnx(out, FromPixels(module).eval(), {**description, "normalisation": PIXELS})
            print(
                f"{out}: differs from torch by {difference:.0e} of the largest score at most", file=sys.stderr
            )
        case ".pt":
            save_network(out, architecture, module.state_dict(), {**description, "normalisation": FLOATS})
        case _:
            raise InputError(f"{out}: must end in .onnx or .pt, which says what it becomes")


def describe(
    architecture: Architecture, network: Segmenter, said: Mapping[str, Any], licence: str
) -> dict[str, Any]:
    """What a user of the network must know, in plain values.

    Args:
        architecture: of the network.
        network: itself.
        said: about it, by the stage that trained it.
        licence: under which terms it may be used.
    """
    return {
        "classes": list(architecture.classes),
        "long_side": architecture.long_side,
        "size": "scale photos so that their long side has long_side pixels, where that is known",
        "resizing": "bilinear, anti-aliased where photos shrink, as in training",
        "mean": network.backbone.mean.flatten().tolist(),
        "deviation": network.backbone.deviation.flatten().tolist(),
        "backbone": architecture.backbone,
        "first_weights": said.get("first_weights", {}),
        "head": architecture.head,
        "licence": licence,
        "made_by": f"plda {__version__}",
    }


def write_onnx(path: Path, network: FromPixels, about: dict[str, Any]) -> float:
    """Write a network as ONNX, once that says what the network says.

    Args:
        path: written.
        network: in evaluation mode, on the CPU.
        about: the metadata; what is no text is written as JSON.

    Returns:
        The largest difference found, as a share of the largest score, or of 1 if that is smaller.

    Raises:
        InputError: packages are missing, or the two differ by more than TOLERANCE.
    """
    runtime = _required("onnxruntime")
    _required("onnxscript")
    free = {axis: torch.export.Dim(name) for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    with torch.no_grad():  # layers have another form where they learn
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
    """How far two networks are apart on noise of several sizes, as a share of the largest score, or of 1.

    Args:
        network: (B, 3, H, W) uint8 RGB to scores (B, C, H, W).
        other: the same, of arrays.
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
    """The command's flags: the arguments of `export`."""
    command.add_argument(
        "--network", type=Path, required=True, metavar="FILE", help="network.pt of the stage train_segmenter"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="written; ends in .onnx or .pt"
    )
    command.add_argument(
        "--licence",
        default=LICENCE,
        metavar="TEXT",
        help="under which terms the network may be used; by default a note that nobody said",
    )
