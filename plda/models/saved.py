"""A trained network in one file: what it is, the classes it knows, its weights. Loading never runs code."""

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from plda.errors import InputError
from plda.files import write_bytes
from plda.models.backbones import Backbone, build_backbone, load_backbone
from plda.models.baselines import build_baseline
from plda.models.boundary import BoundaryNetwork
from plda.models.segmenters import Segmenter
from plda.params import Backbone as BackboneName
from plda.params import Section, check
from plda.randomness import mixed


class _Described(Section):
    """What a file may say of an `Architecture`."""

    kind: Literal["cam", "boundary", "segmenter"]
    backbone: BackboneName
    output_stride: Literal[8, 16, 32]
    batch_norm: Literal["trained", "frozen"]
    head: str
    classes: Annotated[list[str], Field(min_length=2, max_length=255)]
    long_side: Annotated[int, Field(ge=1, le=100_000)] | None = None


@dataclass(frozen=True)
class Architecture:
    """All that is needed to build a network anew, without its weights.

    Attributes:
        kind: "cam", "boundary" or "segmenter".
        backbone: see `plda.params.Backbone`.
        output_stride: 8, 16 or 32.
        batch_norm: "trained" or "frozen".
        head: a segmenter's head, see `Segmenter`; a CAM network's baseline, see `build_baseline`; else "".
        classes: class names, background first.
        long_side: of the images that it learnt from, on average, pixels; None where nobody noted it.
    """

    kind: str
    backbone: str
    output_stride: int
    batch_norm: str
    head: str
    classes: tuple[str, ...]
    long_side: int | None = None

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        backbone = build_backbone(self.backbone, output_stride=self.output_stride, batch_norm=self.batch_norm)
        match self.kind:
            case "cam":
                return build_baseline(self.head, backbone, len(self.classes) - 1)
            case "boundary":
                return BoundaryNetwork(backbone)
            case _:
                return Segmenter(backbone, self.head, len(self.classes))

    def start(self, weights: Mapping[str, Tensor], seed: int) -> nn.Module:
        """The network with a head drawn from `seed`; its backbone has `weights`, named as in `classifier`."""
        torch.manual_seed(mixed(seed, 1))
        network = self.build()
        load_backbone(cast(Backbone, network.backbone), self.backbone, weights)
        return network


def save_network(
    path: Path,
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a trained network; the same weights give the same bytes.

    Args:
        path: written.
        architecture: what the network is.
        weights: its state.
        about: plain values for whoever opens the file; nothing here reads them.
    """
    described = {**vars(architecture), "classes": list(architecture.classes)}
    content = {"architecture": described, "weights": dict(weights)}
    save(path, content if about is None else {**content, "about": dict(about)})


def load_network(path: Path, kind: str, classes: Sequence[str]) -> nn.Module:
    """Read a trained network, in evaluation mode on the CPU; raises what `read_network` does."""
    return read_network(path, kind, classes)[1].eval()


def read_network(
    path: Path, kind: str, classes: Sequence[str] | None = None
) -> tuple[Architecture, nn.Module]:
    """Read a trained network with what is needed to build it anew.

    Args:
        path: a file of `save_network`.
        kind: see `Architecture`.
        classes: those that it must know; None: any.

    Raises:
        InputError: not a file of `save_network`, of another kind, or of other classes.
    """
    content = load(path)
    try:
        described = check(_Described, content["architecture"], f"{path}: architecture").model_dump()
        architecture = Architecture(**{**described, "classes": tuple(described["classes"])})
        network = architecture.build()
        network.load_state_dict(content["weights"])
        if not all(weight.isfinite().all() for weight in network.state_dict().values()):
            raise ValueError("weights: must be finite numbers")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: is no trained network of this project: {error}") from error
    if architecture.kind != kind:
        raise InputError(f"{path}: field kind: is {architecture.kind!r}, {kind!r} is needed")
    if classes is not None and architecture.classes != tuple(classes):
        raise InputError(
            f"{path}: field classes: trained for {', '.join(architecture.classes)}; "
            f"the data set has {', '.join(classes)}"
        )
    return architecture, network


def save(path: Path, content: Any) -> None:
    """Write tensors and plain values with torch.save, atomically."""
    buffer = io.BytesIO()  # named by nothing, so that the bytes depend on the content alone
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> Any:
    """Read tensors and plain values onto the CPU; a file that asks for code to be run is refused.

    Raises:
        InputError: missing, damaged, or holding anything but tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: is missing") from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused: it is damaged, or holds more than tensors and plain values, "
            "and loading it could run code"
        ) from error
    except Exception as error:  # of a damaged file, torch's unpickler may raise anything
        raise InputError(f"{path}: cannot be read as a torch file: {error}") from error
