"""The flags of the commands that label photos: the network and how it looks at a photo."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from plda.data.transforms import LEAST_SIDE
from plda.params import Device, Precision
from plda.refinement.probabilities import USUAL
from plda.use.network import WINDOW, LongSide


def add_network_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of the network, its device, and `inference_settings`."""
    command.add_argument(
        "--network", type=Path, required=True, metavar="FILE", help="network.pt of the stage train_segmenter"
    )
    command.add_argument(
        "--device", choices=get_args(Device), default="auto", help="auto: a GPU if there is one"
    )
    command.add_argument(
        "--long-side",
        type=_long_side,
        default="trained",
        metavar="PIXELS",
        help="long side of the network's input; trained (the default): as in training, so that objects have "
        "the size that the network has learnt; full: the size of the photo",
    )
    command.add_argument(
        "--scales",
        type=_scales,
        default=(1.0,),
        metavar="FACTORS",
        help="average over several input sizes, for instance 0.75,1,1.25; slower",
    )
    command.add_argument("--flip", action="store_true", help="average with the mirrored photo; slower")
    command.add_argument(
        "--no-refinement",
        dest="refine",
        action="store_false",
        help="keep the coarse outlines of the network, without refinement by the photo's colours; faster",
    )
    command.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help="number format of the network; auto: 32 bits, or bfloat16 if it is faster on the device",
    )
    command.add_argument(
        "--window",
        type=_side,
        default=WINDOW,
        metavar="PIXELS",
        help="larger inputs are cut into overlapping windows of this side (default: %(default)s); "
        "smaller windows take less memory",
    )


def inference_settings(
    *,
    long_side: LongSide,
    scales: Sequence[float],
    flip: bool,
    precision: Precision,
    window: int,
    refine: bool,
) -> dict[str, Any]:
    """Return the arguments of TrainedNetwork that the flags give, as values for JSON."""
    return {
        "long_side": long_side,
        "scales": list(scales),
        "flip": flip,
        "precision": precision,
        "window": window,
        "refinement": USUAL if refine else {},
    }


def _side(text: str) -> int:
    if not text.isdecimal() or int(text) < LEAST_SIDE:
        raise argparse.ArgumentTypeError(f"must be a number of pixels, got {text!r}; minimum: {LEAST_SIDE}")
    return int(text)


def _long_side(text: str) -> LongSide:
    match text:
        case "trained" | "full":
            return text
        case _:
            return _side(text)


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = (0.0,)
    if not all(0 < scale <= 4 for scale in scales):  # memory grows with the square: more is a mistake
        raise argparse.ArgumentTypeError(
            f"must be a list of factors above 0, up to 4, separated by commas, got {text!r}"
        )
    return scales
