"""Measures three optimizations on this CPU: keeping freed memory, channels last, sleeping OpenMP threads.

    PYTHONPATH=. python benchmarks/cpu_step.py [--threads 2] [--rounds 5]

Times a training step of MobileNetV2 (batch 12, 224 px) with all three optimizations and without each, in
turn, in a new process each time. Prints the median of the ratios *without / with* and their range. A ratio
above 1 means that the optimization helps.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from plda.__main__ import ENVIRONMENT

HABITS = ("keep_memory", "channels_last", "sleeping_threads")


def step_seconds(without: str, threads: int) -> float:
    """Return the median seconds of a step in this process, with all optimizations except `without`."""
    import torch

    from plda.models.backbones import Backbone

    torch.set_num_threads(threads)
    layout = torch.contiguous_format if without == "channels_last" else torch.channels_last
    network = Backbone("mobilenetv2_100", output_stride=16).to(memory_format=layout)
    image = torch.randn(12, 3, 224, 224).contiguous(memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        loss = network(image)["stage4"].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def measure(without: str, threads: int) -> float:
    habits = {"sleeping_threads": "OMP_WAIT_POLICY", "keep_memory": "GLIBC_TUNABLES"}
    chosen = {name: value for name, value in ENVIRONMENT.items() if name != habits.get(without)}
    command = [sys.executable, __file__, "--threads", str(threads), "--without", without]
    environment = {**os.environ, **chosen}
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.without is not None:
        print(step_seconds(options.without, options.threads))
        return
    ratios: dict[str, list[float]] = {habit: [] for habit in HABITS}
    for _ in range(options.rounds):
        with_all = measure("none", options.threads)
        for habit in HABITS:
            ratios[habit].append(measure(habit, options.threads) / with_all)
    print(f"{options.threads} threads, {options.rounds} rounds: without / with, median (least-most)")
    for habit, values in ratios.items():
        print(f"  {habit:17} {statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})")


if __name__ == "__main__":
    main()
