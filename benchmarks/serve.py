"""Measures `plda serve`: requests per second, latency and memory with 1, 8 and 100 clients at once.

    python benchmarks/serve.py [--network network.pt] [--requests 100] [--flags="--batch 1"] [PHOTO ...]

Each client sends one photo after another. Without --network, a network of the preset `photos` (EfficientNet-
Lite2, 320 pixels, seven classes) with random weights is used; without photos, smooth noise of 640 x 480.
"""

import argparse
import io
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from plda.models.saved import Architecture, save_network
from plda.models.segmenters import SEGMENTER

CLIENTS = (1, 8, 100)
DRAWN = 8  # photos
CLASSES = ("background", "bird", "boat", "bus", "cat", "dog", "person")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", type=Path)
    parser.add_argument("--requests", type=int, default=100, help="of each row, at least one per client")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--flags", type=shlex.split, default=[], help="further flags of plda serve")
    parser.add_argument("photos", type=Path, nargs="*", metavar="PHOTO")
    options = parser.parse_args()
    photos = [path.read_bytes() for path in options.photos] or [draw(seed) for seed in range(DRAWN)]
    with tempfile.TemporaryDirectory() as folder:
        network = options.network or untrained(Path(folder) / "network.pt")
        command = [sys.executable, "-m", "plda", "serve", "--network", str(network), "--port", "0"]
        command += ["--queue", str(max(options.clients)), *options.flags]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            try:
                address = re.search(r"http://\S+", server.stderr.readline())[0]
                ask(address, photos[0])  # the first is slower
                print("| clients | requests/s | p50 s | p95 s | photos per batch | MiB |")
                print("|---:|---:|---:|---:|---:|---:|", flush=True)
                for clients in options.clients:
                    print(
                        row(address, photos, clients, max(clients, options.requests), server.pid), flush=True
                    )
            finally:
                server.kill()


def row(address: str, photos: Sequence[bytes], clients: int, requests: int, process: int) -> str:
    """Send the requests; return a row of the table."""
    before, began = batches(address), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        bodies = (photos[number % len(photos)] for number in range(requests))
        seconds = sorted(pool.map(lambda body: ask(address, body), bodies))
    rate = requests / (time.perf_counter() - began)
    labelled, count = (after - earlier for after, earlier in zip(batches(address), before, strict=True))
    p50, p95 = statistics.median(seconds), seconds[int(0.95 * (len(seconds) - 1))]
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024
    return f"| {clients} | {rate:.1f} | {p50:.2f} | {p95:.2f} | {labelled / count:.1f} | {memory:.0f} |"


def ask(address: str, photo: bytes) -> float:
    """Send a photo; return the seconds until its mask is here. An error ends the benchmark."""
    began = time.perf_counter()
    with urllib.request.urlopen(f"{address}predict", photo) as answer:
        answer.read()
    return time.perf_counter() - began


def batches(address: str) -> tuple[float, float]:
    """Return the number of photos in all batches, and of batches."""
    with urllib.request.urlopen(f"{address}metrics") as answer:
        text = answer.read().decode()
    photos, count = (re.search(rf"^plda_batch_size_{it} (\S+)", text, re.M)[1] for it in ("sum", "count"))
    return float(photos), float(count)


def draw(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def untrained(path: Path) -> Path:
    torch.manual_seed(0)
    name, head = "tf_efficientnet_lite2", "deeplabv2"
    architecture = Architecture("segmenter", name, 16, "frozen", head, CLASSES, 320)
    save_network(path, architecture, SEGMENTER.build(architecture).state_dict())
    return path


if __name__ == "__main__":
    main()
