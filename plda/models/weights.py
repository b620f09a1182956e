"""Where a backbone's first weights come from: random numbers, torchvision's release, a URL, a file."""

import hashlib
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from plda.data.download import Unavailable, fetch
from plda.errors import InputError
from plda.files import need_space
from plda.models.backbones import build_backbone, classifier, load_backbone
from plda.models.mxnet_file import is_mxnet_file, read_mxnet_file
from plda.models.resnet38d import RELEASE, from_release
from plda.models.saved import load
from plda.params import Weights
from plda.randomness import mixed
from plda.vision import torchvision

LARGEST = 500_000_000  # bytes; more than any weight file on offer
UNRELEASED = {
    "resnet10": "there are no ImageNet weights of resnet10; take `random`, or another network",
    "resnet38d": "the ImageNet weights of resnet38d have no release that stays; "
    f"get its authors' file {RELEASE} and give its path or URL",
}


def first_weights(weights: Weights, field: str, seed: int, near: Path) -> Mapping[str, Tensor]:
    """A backbone's weights, named as in `classifier`, as `weights.weights` says.

    `random`: drawn from `seed`. `imagenet`: torchvision's release. A URL: downloaded. Anything else: a file.
    A file is torch's, or for resnet38d the one that its authors made with MXNet; its content tells which.

    Args:
        weights: what is asked for.
        field: where that stands in the params, for messages.
        seed: for random weights.
        near: a path on the disk where downloads may be put.

    Raises:
        InputError: it cannot be had, has another checksum, or does not fit the network.
    """
    if weights.weights == "random":
        torch.manual_seed(mixed(seed, 0))
        return classifier(weights.name).state_dict()
    where = weights.weights
    checksum = weights.sha256
    if where == "imagenet":
        where, checksum = release(weights.name, field)
    if re.match("https?://", where):
        need_space(near, LARGEST)
        with tempfile.TemporaryDirectory(dir=near.parent) as folder:
            file = Path(folder) / "weights.pt"
            _download(where, file, field)
            return _checked(file, where, checksum, weights.name, field)
    return _checked(Path(where), where, checksum, weights.name, field)


def release(name: str, field: str) -> tuple[str, str]:
    """URL and the first digits of the SHA-256 of torchvision's ImageNet weights."""
    if name in UNRELEASED:
        raise InputError(f"params: {field}.weights: {UNRELEASED[name]}")
    release = torchvision.models.get_model_weights(name).DEFAULT
    digits = re.search(r"-([0-9a-f]{8,})\.pth$", release.url)
    assert digits, release.url
    return release.url, digits[1]


def _download(url: str, file: Path, field: str) -> None:
    try:
        fetch(file, [url])
    except Unavailable as error:
        raise InputError(
            f"params: {field}.weights: {url} cannot be downloaded: {error.reasons[url]}; "
            "get the file by other means and name its path here"
        ) from error


def _checked(file: Path, where: str, checksum: str, name: str, field: str) -> Mapping[str, Tensor]:
    if not file.is_file():
        raise InputError(f"params: {field}.weights: {where}: no such file")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(checksum):
        raise InputError(
            f"params: {field}.sha256: {where} has SHA-256 {digest}, {checksum} was expected; "
            "it is damaged or another file"
        )
    content = from_release(read_mxnet_file(file), file) if is_mxnet_file(file) else load(file)
    try:
        load_backbone(build_backbone(name), name, content)
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:
        raise InputError(
            f"params: {field}.weights: {where} does not hold weights of {name}: {error}"
        ) from error
    return content  # type: ignore[no-any-return]
