"""The initial weights of a backbone: random numbers, timm's release, a URL, or a file.

Supported layouts:

    timm          timm's names, or those of a release that timm converts (of DINOv2, ConvNeXt, ...)
    torchvision   other names for the same tensors in the same order, as of torchvision's MobileNetV2. Its
                  ResNets have timm's names
    MXNet         the file of resnet38d's authors
"""

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import safetensors.torch
import torch
from torch import Tensor, nn

from plda.download.fetch import Unavailable, fetch
from plda.errors import InputError
from plda.files import need_space, sha256
from plda.models.backbones import create
from plda.models.hub import fetch_from_hub
from plda.models.mxnet_file import is_mxnet_file, read_mxnet_file
from plda.models.resnet38d import RELEASE, from_release
from plda.models.saved import load
from plda.params import Weights
from plda.randomness import derive_seed
from plda.vision import timm

LARGEST = 2_000_000_000  # bytes; more than most published weight files
WITHIN = ("model_ema", "state_dict", "model")  # keys under which a training script may store the tensors
UNFIT = (  # errors of reading a wrong file, or one of another network
    InputError,
    safetensors.SafetensorError,
    RuntimeError,
    AttributeError,
    TypeError,
    KeyError,
    ValueError,
)
UNRELEASED = {
    "resnet38d": "the ImageNet weights of resnet38d have no permanent download; "
    f"get the authors' file {RELEASE} and set its path or URL here",
}


@dataclass(frozen=True)
class FirstWeights:
    """The initial weights of a backbone.

    Attributes:
        tensors: by timm's names, without the classifier.
        origin: their source in words: place, repository, revision, sha256, licence, layout.
    """

    tensors: dict[str, Tensor]
    origin: dict[str, str]


def first_weights(weights: Weights, field: str, seed: int, near: Path) -> FirstWeights:
    """Return a backbone's initial weights, as `weights.weights` requests.

    `random`: drawn from `seed`. `pretrained`: timm's release, from its hub. A URL: downloaded. Any other
    value: a file, whose layout is detected from its content.

    Args:
        weights: the requested weights.
        field: the field of the params that requests them, for messages.
        seed: for random weights.
        near: a path on the disk where downloads may be stored.

    Raises:
        InputError: the weights are not available, have another checksum, or do not fit the network.
    """
    name, where = weights.name, weights.weights
    if where == "random":
        torch.manual_seed(derive_seed(seed, 0))
        return FirstWeights(dict(_body(name).state_dict()), {"from": "random numbers"})
    if where == "pretrained":
        return _released(weights, field, near)
    if re.match("https?://", where):
        return _downloaded(where, weights, field, near)
    return _read(Path(where), weights, field, where, {"from": "a file", "file": PurePosixPath(where).name})


def _released(weights: Weights, field: str, near: Path) -> FirstWeights:
    name = weights.name
    if name in UNRELEASED:
        raise InputError(f"params: {field}.weights: {UNRELEASED[name]}")
    config = timm.get_pretrained_cfg(name)
    if not config.has_weights:
        raise InputError(
            f"params: {field}.weights: timm has no weights of {name}; set random or the path of a file, "
            "or choose another network (`plda backbones` lists them)"
        )
    terms = {"licence": config.license or "not stated"}
    if not config.hf_hub_id:
        return _downloaded(config.url, weights, field, near, terms)
    file = fetch_from_hub(config, field)
    origin = {"from": "timm's release", "repository": file.repository, "revision": file.revision, **terms}
    return _read(file.path, weights, field, f"{file.repository}/{file.name}", origin)


def _downloaded(
    url: str, weights: Weights, field: str, near: Path, terms: Mapping[str, str] | None = None
) -> FirstWeights:
    need_space(near, LARGEST)
    with tempfile.TemporaryDirectory(dir=near.parent) as folder:
        file = Path(folder) / "weights"
        try:
            fetch(file, [url])
        except Unavailable as error:
            raise InputError(
                f"params: {field}.weights: {url} cannot be downloaded: {error.reasons[url]}; "
                "download the file in another way and set its path here"
            ) from error
        shown = PurePosixPath(urlsplit(url).path).name
        return _read(file, weights, field, url, {"from": "a URL", "file": shown, **(terms or {})})


def _read(file: Path, weights: Weights, field: str, where: str, origin: Mapping[str, str]) -> FirstWeights:
    if not file.is_file():
        hint = "; use pretrained for timm's release" if where == "imagenet" else ""
        raise InputError(f"params: {field}.weights: {where}: no such file{hint}")
    digest = sha256(file)
    if not digest.startswith(weights.sha256):
        raise InputError(
            f"params: {field}.sha256: {where} has SHA-256 {digest}, {weights.sha256} was expected; "
            "the file is damaged or not the expected one"
        )
    try:
        tensors, layout = fitted(weights.name, _content(file))
    except UNFIT as error:
        raise InputError(
            f"params: {field}.weights: {where} does not hold weights of {weights.name}: {error}"
        ) from error
    terms = {"licence": "not stated"} | dict(origin)
    return FirstWeights(tensors, {**terms, "sha256": digest, "layout": layout})


def _content(file: Path) -> Any:
    """Return the content of a file; refuse a file whose loading would run code."""
    with file.open("rb") as stream:
        start = stream.read(9)
    if is_mxnet_file(file):
        return from_release(read_mxnet_file(file), file)
    if start[8:] == b"{":
        return safetensors.torch.load_file(file)
    return load(file)


def fitted(name: str, content: Any) -> tuple[dict[str, Tensor], str]:
    """Return a network's weights by timm's names, without the classifier, and the name of their layout.

    Args:
        name: network name.
        content: content of a weights file.

    Raises:
        RuntimeError: the weights do not fit; the message names the tensor.
        TypeError: the content is not a dict.
    """
    if not isinstance(content, Mapping):
        raise TypeError(f"must be a dict of tensors by name, got {type(content).__name__}")
    for key in WITHIN:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = {key.removeprefix("module."): value for key, value in content.items()}
    body = _body(name)
    classifier = timm.get_pretrained_cfg(name).classifier or ()
    ours = {k: v for k, v in tensors.items() if not _belongs(k, classifier)}
    try:
        body.load_state_dict(ours)
        return dict(body.state_dict()), "timm"
    except RuntimeError as error:
        reason = error
    whole = timm.create_model(name)
    if in_order := _in_order(whole, tensors):
        return {k: v for k, v in in_order.items() if k in body.state_dict()}, "torchvision"
    try:  # layouts that timm converts
        release = {"state_dict": tensors, "custom_load": False}
        whole = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=release)
    except Exception as error:  # its converters raise many kinds of errors for other names
        raise reason from error
    return {k: v for k, v in whole.state_dict().items() if k in body.state_dict()}, "timm"


def _body(name: str) -> nn.Module:
    return create(name, num_classes=0)


def _belongs(key: str, layers: str | Iterable[str]) -> bool:
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    return key.rpartition(".")[0] in names


def _in_order(network: nn.Module, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors under the network's names, if shapes and order are equal; else {}."""
    own = network.state_dict()
    shapes = [getattr(value, "shape", None) for value in tensors.values()]
    if shapes != [value.shape for value in own.values()]:
        return {}
    return dict(zip(own, tensors.values(), strict=True))
