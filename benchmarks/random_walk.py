"""Measures the random walk in four forms: seconds, memory, and the difference to float64.

    python benchmarks/random_walk.py [--threads 1] [--rounds 3] [--device cpu]

dense: the published form, an N x N matrix squared 8 times. sparse: 256 products with torch's compressed rows.
sparse, short: as many such products as plda.refinement.walk computes. ours: that module. All use the same
boundary and 3 maps, at a quarter of 188 x 252, 248 x 336 and 376 x 500 pixels; the dense form skips the last.
Memory is the peak minus the memory of the process before the walk; the difference is the maximum to the walk
in float64. Every value is measured in a new process.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

SIZES = ((47, 63), (62, 84), (94, 125))
FORMS = ("dense", "sparse", "sparse, short", "ours")
MAPS, RADIUS, BETA, STEPS = 3, 5, 10, 256


def walk(options: argparse.Namespace) -> tuple[float, float, float]:
    """Return seconds, MiB, and the maximum difference to float64."""
    import torch

    from plda.refinement.walk import random_walk

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device, (height, width) = torch.device(options.device), options.size
    # edges between patches, as in an image
    patches = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 8), (height, width), mode="bicubic")
    boundary = ((patches * 12).frac() < 0.25).float() * torch.rand(1, 1, height, width) ** 0.5
    maps = torch.rand(1, MAPS, height, width)
    form: Callable[..., Any] = random_walk
    if options.form != "ours":
        form = {"dense": dense, "sparse": sparse, "sparse, short": short}[options.form]
    given = maps.to(device), boundary.to(device)
    form(given[0][..., :9, :9], given[1][..., :9, :9])  # warm-up
    before, began = held(device), time.perf_counter()
    walked = form(*given)
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds, memory = time.perf_counter() - began, held(device) - before
    exact = random_walk(maps.double(), boundary.double())
    return seconds, memory, float((walked.cpu() - exact).abs().max())


def transition(boundary: Any) -> Any:
    """Return T^T, (N, N) in torch's compressed rows."""
    import torch

    from plda.refinement.affinity import affinities

    places = torch.arange(boundary.numel(), device=boundary.device).view(boundary.shape)
    rows, columns, values = [places.flatten()], [places.flatten()], [torch.ones_like(boundary).flatten()]
    for offset, affinity in affinities(boundary, RADIUS):
        one, other = offset.first(places).flatten(), offset.second(places).flatten()
        rows += [one, other]
        columns += [other, one]
        values += [affinity.flatten() ** BETA] * 2
    row, value = torch.cat(rows), torch.cat(values)
    total = torch.zeros_like(boundary).flatten().index_add_(0, row, value)
    place = torch.stack([row, torch.cat(columns)])
    square = (boundary.numel(), boundary.numel())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.sparse_coo_tensor(place, value / total[row], square).to_sparse_csr()


def dense(maps: Any, boundary: Any) -> Any:
    matrix = transition(boundary).to_dense().T
    for _ in range(STEPS.bit_length() - 1):
        matrix = matrix @ matrix
    return ((maps * (1 - boundary)).reshape(MAPS, -1) @ matrix).reshape(maps.shape)


def sparse(maps: Any, boundary: Any) -> Any:
    matrix, x = transition(boundary), (maps * (1 - boundary)).reshape(MAPS, -1).T.contiguous()
    for _ in range(STEPS):
        x = matrix @ x
    return x.T.reshape(maps.shape)


def short(maps: Any, boundary: Any) -> Any:
    from plda.refinement.walk import chebyshev

    coefficients = chebyshev(STEPS)
    matrix, before = transition(boundary), (maps * (1 - boundary)).reshape(MAPS, -1).T.contiguous()
    now = matrix @ before
    total = coefficients[0] * before + coefficients[1] * now
    for coefficient in coefficients[2:]:
        before, now = now, (matrix @ now).mul_(2).sub_(before)
        total.add_(now, alpha=coefficient)
    return total.T.reshape(maps.shape)


def held(device: Any) -> float:
    """Return the peak memory of this process so far, in MiB."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(form: str, size: tuple[int, int]) -> list[float]:
    command = [sys.executable, *sys.argv, "--form", form, "--size", *map(str, size)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": "."}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    figures: list[float] = json.loads(said)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--form", help=argparse.SUPPRESS)
    parser.add_argument("--size", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        print(json.dumps(walk(options)))
        return
    print(f"{options.device}, {options.threads} threads, {options.rounds} rounds: medians")
    for size in SIZES:
        forms = FORMS[1:] if size == SIZES[-1] else FORMS
        runs = {form: [] for form in forms}
        for _ in range(options.rounds):
            for form in forms:
                runs[form].append(measure(form, size))
        ours = statistics.median(seconds for seconds, _, _ in runs["ours"])
        for form, figures in runs.items():
            seconds, memory, away = (statistics.median(values) for values in zip(*figures, strict=True))
            print(
                f"  {size[0]} x {size[1]} {form:14} {seconds:8.3f} s, {seconds / ours:6.1f} times ours, "
                f"{memory:5.0f} MiB, {away:.0e} off",
                flush=True,
            )


if __name__ == "__main__":
    main()
