"""Trained networks in files: architecture, class names, weights. Loading a file never runs code.

This module imports no network. The caller says which kind of network a file must hold, so a stage depends
only on the code of the networks that it uses.
"""

import io
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from plda.errors import InputError
from plda.files import write_bytes
from plda.models.backbones import Backbone, Network
from plda.params import Backbone as BackboneName
from plda.params import OutputStride, Section, check
from plda.randomness import derive_seed


class _Described(Section):
    """The schema of an `Architecture` in a file."""

    kind: Literal["cam", "boundary", "segmenter"]
    backbone: BackboneName
    output_stride: OutputStride
    batch_norm: Literal["trained", "frozen"]
    head: str
    classes: Annotated[list[str], Field(min_length=2, max_length=255)]
    long_side: Annotated[int, Field(ge=1, le=100_000)] | None = None
    tagger: "_Described | None" = None

    def architecture(self) -> "Architecture":
        tagger = self.tagger and self.tagger.architecture()
        return Architecture(**{**vars(self), "classes": tuple(self.classes), "tagger": tagger})


@dataclass(frozen=True)
class Architecture:
    """Everything that is needed to rebuild a network, except its weights.

    Attributes:
        kind: "cam", "boundary" or "segmenter".
        backbone: see `plda.params.Backbone`.
        output_stride: stride of the last feature map.
        batch_norm: "trained" or "frozen".
        head: a segmenter's head, see `Segmenter`; a CAM network's baseline, see `build_baseline`; else "".
        classes: class names, background first.
        long_side: mean long side of the training images, pixels; None if unknown.
        tagger: of a segmenter, that of the classifier inside it, see `plda.models.tagger`; None without one.
    """

    kind: str
    backbone: str
    output_stride: int
    batch_norm: str
    head: str
    classes: tuple[str, ...]
    long_side: int | None = None
    tagger: "Architecture | None" = None


N = TypeVar("N", bound=Network)


@dataclass(frozen=True)
class Kind(Generic[N]):
    """A kind of network; each network module defines one.

    Attributes:
        name: "cam", "boundary" or "segmenter", as in files.
        on: builds a network with random weights on a backbone.
    """

    name: str
    on: Callable[[Backbone, Architecture], N]

    def build(self, architecture: Architecture) -> N:
        """Return the network with random weights."""
        backbone = Backbone(
            architecture.backbone,
            output_stride=architecture.output_stride,
            batch_norm=architecture.batch_norm,
        )
        return self.on(backbone, architecture)

    def start(
        self, architecture: Architecture, weights: Mapping[str, Tensor], seed: int, freeze: str = "none"
    ) -> N:
        """Return the network in its state at the start of training.

        Args:
            architecture: architecture of the network.
            weights: weights of its backbone, see `Backbone.load`.
            seed: seed of the head's random weights.
            freeze: part of the backbone that is not trained, see `Backbone.freeze`.

        Raises:
            InputError: the backbone gives no maps with this output stride.
        """
        torch.manual_seed(derive_seed(seed, 1))
        try:
            network = self.build(architecture)
        except ValueError as error:
            raise InputError(f"params: {error}") from error
        network.backbone.load(weights)
        network.backbone.freeze(freeze)
        if not network.backbone.has_batch_norm:
            said = f"batch_norm: {architecture.batch_norm}: no effect"
            print(f"{said}, {architecture.backbone} has no batch norm", file=sys.stderr, flush=True)
        return network


def save_network(
    path: Path,
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a trained network; the same weights give the same bytes.

    Args:
        path: output file.
        architecture: architecture of the network.
        weights: state of the network.
        about: plain values that describe the network; `read_network` ignores them.
    """
    content = {"architecture": _plain(architecture), "weights": dict(weights)}
    save(path, content if about is None else {**content, "about": dict(about)})


def load_network(path: Path, kind: Kind[N], classes: Sequence[str]) -> N:
    """Read a trained network, in evaluation mode on the CPU; raises the errors of `read_network`."""
    return read_network(path, kind, classes)[1].eval()


def read_network(path: Path, kind: Kind[N], classes: Sequence[str] | None = None) -> tuple[Architecture, N]:
    """Read a trained network and its architecture.

    Args:
        path: a file of `save_network`.
        kind: required kind of network.
        classes: required class names; None: any.

    Raises:
        InputError: not a file of `save_network`, or with another kind or other classes.
    """
    architecture, weights = read_saved(path, kind.name, classes)
    try:
        network = kind.build(architecture)
        network.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: is not a network saved by plda: {error}") from error
    return architecture, network


def read_saved(
    path: Path, kind: str, classes: Sequence[str] | None = None
) -> tuple[Architecture, Mapping[str, Tensor]]:
    """Read architecture and weights of a trained network; arguments and errors as of `read_network`."""
    content = load(path)
    try:
        architecture = check(_Described, content["architecture"], f"{path}: architecture").architecture()
        if architecture.kind != kind:
            raise InputError(
                f"{path}: architecture.kind: must be {kind!r}, got {architecture.kind!r}; "
                "give the file of the right stage"
            )
        weights: Mapping[str, Tensor] = content["weights"]
        if not all(weight.isfinite().all() for weight in weights.values()):
            raise ValueError("weights: must be finite numbers")
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: is not a network saved by plda: {error}") from error
    if classes is not None and architecture.classes != tuple(classes):
        raise InputError(
            f"{path}: field classes: trained for {', '.join(architecture.classes)}; "
            f"the data set has {', '.join(classes)}"
        )
    return architecture, weights


def _plain(architecture: Architecture) -> dict[str, Any]:
    """Return an architecture as the plain values of a file."""
    tagger = architecture.tagger and _plain(architecture.tagger)
    return {**vars(architecture), "classes": list(architecture.classes), "tagger": tagger}


def about(path: Path) -> dict[str, Any]:
    """Return the values `about` that `save_network` wrote into a file."""
    said: dict[str, Any] = load(path).get("about") or {}
    return said


def save(path: Path, content: Any) -> None:
    """Write tensors and plain values with torch.save, atomically."""
    buffer = io.BytesIO()  # without a file name, so that the bytes depend only on the content
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> Any:
    """Read tensors and plain values onto the CPU; refuse a file whose loading would run code.

    Raises:
        InputError: missing, damaged, or with anything except tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: is missing") from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused: it is damaged, or contains more than tensors and plain values, "
            "so loading it could run code"
        ) from error
    except Exception as error:  # torch's unpickler may raise any error for a damaged file
        raise InputError(f"{path}: cannot be read as a torch file: {error}") from error
