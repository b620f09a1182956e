"""The command serve: a network that labels photos over HTTP."""

import argparse
import ipaddress
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from plda.compute.device import named_device
from plda.data.images import MOST_BYTES, MOST_PIXELS
from plda.params import Device, Precision
from plda.use.flags import add_network_flags, inference_settings
from plda.use.network import LongSide, TrainedNetwork
from plda.web import LOOPBACK, require_web, run_server

DAY = 86400  # seconds


def serve(
    *,
    network: Path,
    host: str,
    port: int,
    device: Device,
    long_side: LongSide,
    scales: Sequence[float],
    flip: bool,
    precision: Precision,
    window: int,
    refine: bool,
    max_bytes: int,
    max_pixels: int,
    timeout: float,
    queue: int,
    batch: int,
) -> None:
    """Label photos over HTTP with a trained network, until Ctrl-C.

    curl --data-binary @photo.jpg http://127.0.0.1:8000/predict > mask.png

    POST /predict: the body is a photo file. The answer is the palette mask (PNG) that `plda predict` writes;
    with ?format=coco, COCO JSON with an annotation per object. With ?tags=dog;person only these classes are
    allowed, and background. The headers X-Classes and X-Expected-IoU have what `plda predict` writes into
    labels/NAME.json.

    GET /: a page for the browser. GET /classes: class names, ids and colours. GET /healthz, GET /metrics: for
    monitoring.

    A request beyond a limit gets a status and a JSON message, {"error": MESSAGE}. There is no authentication.
    """
    require_web("serve")
    from plda.use.application import build_app  # needs the optional packages
    from plda.use.service import Limits

    look = inference_settings(
        long_side=long_side, scales=scales, flip=flip, precision=precision, window=window, refine=refine
    )
    trained = TrainedNetwork(network, device=named_device(device, "device").type, **look)
    if not _is_loopback(host):
        print(
            f"plda serve: Warning: --host {host}: other machines may reach this port; no one has to log in",
            file=sys.stderr,
            flush=True,
        )
    limits = Limits(max_bytes, max_pixels, timeout, queue, batch)
    run_server(build_app(trained, limits), host, port, "serve")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the flags of the command: the arguments of `serve`."""
    add_network_flags(command)
    command.add_argument(
        "--host", default=LOOPBACK, help="address to listen on (default: %(default)s, this machine only)"
    )
    command.add_argument(
        "--port", type=_whole(0, 65535), default=8000, help="TCP port; 0: any free one (default: %(default)s)"
    )
    command.add_argument(
        "--max-bytes",
        type=_whole(1, MOST_BYTES),
        default=2**25,
        metavar="BYTES",
        help="largest photo file (default: %(default)s)",
    )
    command.add_argument(
        "--max-pixels",
        type=_whole(1, MOST_PIXELS),
        default=50_000_000,
        metavar="PIXELS",
        help="largest photo, width times height (default: %(default)s)",
    )
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=60,
        metavar="SECONDS",
        help="longest time of a request (default: %(default)s)",
    )
    command.add_argument(
        "--queue",
        type=_whole(1, 10_000),
        default=64,
        metavar="REQUESTS",
        help="maximum number of requests at once; each may hold BYTES of memory (default: %(default)s)",
    )
    command.add_argument(
        "--batch",
        type=_whole(1, 64),
        default=4,
        metavar="PHOTOS",
        help="maximum number of waiting photos of one size that the network processes at once; 1: masks are "
        "equal to those of `plda predict` in any precision (default: %(default)s)",
    )


def _whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= DAY:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, up to {DAY}, got {text!r}")
    return seconds


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
