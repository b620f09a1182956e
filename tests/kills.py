"""Kill the small pipeline at random moments and compare its results with an undisturbed run.

    PYTHONPATH=. python tests/kills.py --engine snakemake --kills 100 --seed 0

A kill (SIGKILL) ends the engine and all its jobs at once; then the same command is started again. A pass
ends when the command succeeds. Passes start from nothing and repeat until there were enough kills.
"""

import argparse
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from test_engines import Tree

COMMANDS = {
    "snakemake": ["snakemake", "--cores", "2", "--until"],
    "dvc": ["dvc", "repro"],
}


SHORTEST = 3.0  # seconds; time for an engine to start


@dataclass
class Outcome:
    """Result of a disturbed run.

    Attributes:
        passes: number of passes that succeeded despite the kills.
        hits: number of kills by the stage that was running, "" if none.
        differences: files that differ from those of the undisturbed run.
    """

    passes: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


def disturb(
    tree: Tree, engine: str, kills: int, seed: int = 0, until: str = "report", longest: float = 30
) -> Outcome:
    """Run the pipeline up to a stage: first undisturbed, then in passes with `kills` kills in total.

    Args:
        tree: working tree.
        engine: snakemake or dvc.
        kills: total number of kills.
        seed: seed of the kill times.
        until: last stage.
        longest: maximum seconds before a kill, enough for any stage. Kill times are spread evenly on a
            logarithmic scale, so that many kills hit one stage and every pass makes progress.
    """
    command, moments, outcome = [*COMMANDS[engine], until], random.Random(seed), Outcome()
    tree.run(*command)
    expected = final_files(tree.folder)
    while outcome.hits.total() < kills:
        tree.run("git", "clean", "-dfxq")  # remove all results, caches and checkpoints
        process = tree.start(*command)
        while outcome.hits.total() < kills:
            try:
                process.communicate(timeout=SHORTEST * (longest / SHORTEST) ** moments.random())
                break
            except subprocess.TimeoutExpired:
                outcome.hits[running_stage(process.pid)] += 1
                kill_group(process)
                process = tree.start(*command)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        outcome.passes += 1
        found = final_files(tree.folder)
        outcome.differences += sorted(
            path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path)
        )
        print(
            f"{outcome.hits.total()} kills, {outcome.passes} passes, differences: {outcome.differences}",
            flush=True,
        )
    return outcome


def final_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 checksum of each result file, by path."""
    results = folder / "results" / "main"
    return {
        str(file.relative_to(results)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in results.rglob("*")
        if file.is_file() and file.name != ".snakemake_timestamp"
    }


def running_stage(group: int) -> str:
    """Return the stage that a process of the group runs, or an empty string."""
    commands = subprocess.run(
        ["pgrep", "-g", str(group), "-af", "plda"], capture_output=True, text=True
    ).stdout
    found = re.search(r"python -m plda (\w+)", commands)
    return found[1] if found else ""


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill the process group of a process, if it still exists."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdout and not process.stdout.closed:
        process.communicate()  # returns when all of them have closed the output


def main() -> int:
    """Run the command line; return 1 if a file differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=COMMANDS, default="snakemake")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=30, help="seconds until a kill, at most")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = disturb(
            Tree(Path(folder)), options.engine, options.kills, options.seed, longest=options.longest
        )
    print(f"by stage: {dict(outcome.hits)}")
    print(f"{len(outcome.differences)} differences")
    return bool(outcome.differences)


if __name__ == "__main__":
    sys.exit(main())
