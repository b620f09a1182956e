"""The command backbones: list the available backbone networks."""

import argparse
import csv
import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from plda.errors import InputError
from plda.models.backbones import reading
from plda.models.hub import is_cached
from plda.vision import timm

COLUMNS = ("name", "parameters", "strides", "top-1", "licence", "weights")
WIDTHS = (48, 10, 14, 6, 20)


def backbones(*, pattern: str, results: Path | None) -> None:
    """List the available backbone networks, the values of download_backbone.*.name.

    Names are timm's: an architecture, and after a dot one of its released weights. Parameters are counted
    without the classifier. Strides are those of the four feature maps. Weights says whether the release is in
    the cache. A network that cannot be used has the reason in place of the strides.
    """
    top1 = read_results(results) if results else {}
    found = names(pattern)
    print(_line(COLUMNS))
    for name in found:
        print(_line(describe(name, top1)), flush=True)


def names(pattern: str) -> list[str]:
    """Return the networks that match a pattern such as `resnet*`, with each of their releases, sorted.

    Raises:
        InputError: no network matches.
    """
    every = {*timm.list_models(), *timm.list_pretrained()}
    found = sorted(name for name in every if fnmatch.fnmatch(name, pattern))
    if not found:
        raise InputError(f"no network matches {pattern!r}; use * for the rest of a name, as in 'resnet*'")
    return found


def describe(name: str, top1: Mapping[str, str]) -> Iterator[str]:
    """Yield the cells of a network's line, in the order of COLUMNS.

    Args:
        name: name of the network.
        top1: published top-1 accuracy by name, percent.
    """
    config = timm.get_pretrained_cfg(name)
    yield name
    try:
        how = reading(name)
    except ValueError as error:
        yield str(error).partition("(")[0].removeprefix(f"{name}: ").rstrip()
        return
    with torch.device("meta"):
        count = sum(weight.numel() for weight in how.build(name).parameters())
    yield f"{count / 1e6:.1f} M"
    yield "/".join(str(stride) for stride in how.strides)
    yield top1.get(name, "")
    yield (config and config.license) or ""
    if config is None or not config.has_weights:
        yield "none released"
    else:
        yield "in the cache" if is_cached(config) else "to download"


def read_results(path: Path) -> dict[str, str]:
    """Return top-1 by name from timm's table `results/results-imagenet.csv`, a file of its repository.

    Raises:
        InputError: the file is missing, or is not such a table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return {row["model"]: row["top1"] for row in csv.DictReader(stream)}
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise InputError(f"{path}: must be a table with the columns model and top1 ({error})") from error


def _line(cells: Iterable[str]) -> str:
    *first, last = cells
    return " ".join([*(f"{cell:{width}}" for cell, width in zip(first, WIDTHS, strict=False)), last]).rstrip()


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the flags of the command: the arguments of `backbones`."""
    command.add_argument("pattern", nargs="?", default="*", help="names, such as 'resnet*'; default: all")
    command.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="timm's results-imagenet.csv, for top-1; timm's package does not include it",
    )
