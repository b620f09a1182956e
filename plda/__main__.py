"""The command line: `python -m plda STAGE --path ...`.

A stage is a function in `plda/stages/`, in a file of its name. Its arguments say all there is to say: each
`Path` is a flag; every other one is a section of the params file, handed over already checked.
"""

import argparse
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from plda import __version__
from plda.errors import AGAIN, InputError, Unfinished
from plda.params import read_params

STAGES = {
    "download_data": "have the archives of a published data set, checked",
    "index_data": "check a data set and pack it into one archive and one table",
    "download_backbone": "fetch the weights that the networks start from",
    "train_cam": "train a classifier on image tags",
    "infer_cams": "make class activation maps of the training images",
    "train_boundary": "train the network that sees where objects end, for the random walk",
    "make_masks": "turn the maps into pseudo-masks",
    "evaluate_cams": "score the maps' seeds and the pseudo-masks where true masks exist",
    "train_segmenter": "train a segmentation network on masks",
    "predict_masks": "label every pixel of images it was not trained on",
    "evaluate": "score the segmentation network's masks where true masks exist, and sum up",
    "report": "make the page that shows it all",
}


def stage_function(name: str) -> Callable[..., None]:
    """The function of stage `name`; only now is its code imported."""
    function: Callable[..., None] = getattr(importlib.import_module(f"plda.stages.{name}"), name)
    return function


def path_arguments(function: Callable[..., None]) -> list[str]:
    """The arguments that are flags on the command line."""
    return [p.name for p in inspect.signature(function).parameters.values() if p.annotation is Path]


def sections(function: Callable[..., None]) -> list[str]:
    """The arguments that come from the params file."""
    flags = path_arguments(function)
    return [name for name in inspect.signature(function).parameters if name not in flags]


def wait_without_spinning() -> None:
    """Let OpenMP's threads sleep while they wait, not spin.

    Beside other work that takes a third off a training step; alone it changes nothing
    (benchmarks/cpu_step.py). Takes effect only before torch is imported; a value that the user
    set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage; return the exit status: 0, 2 for bad input, or AGAIN for work that was cut short."""
    wait_without_spinning()
    parser = argparse.ArgumentParser(
        prog="plda",
        description="Semantic segmentation from image tags, one stage at a time. "
        "`snakemake` and `dvc repro` call these commands for you.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(dest="stage", metavar="STAGE", required=True)
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name, line in STAGES.items():
        command = commands.add_parser(name, help=line, description=line)
        if name in given:  # importing every stage would take seconds
            _add_flags(command, stage_function(name))
    options = parser.parse_args(given)
    function = stage_function(options.stage)
    try:
        params = read_params(options.params)
        print(f"{options.stage}: {STAGES[options.stage]}", file=sys.stderr, flush=True)
        paths = {name: getattr(options, name) for name in path_arguments(function)}
        function(**paths, **{name: getattr(params, name) for name in sections(function)})
    except InputError as error:
        if options.traceback:
            raise
        for line in str(error).splitlines():
            print(f"plda {options.stage}: error: {line}", file=sys.stderr)
        return 2
    except Unfinished as error:
        with suppress(OSError):  # who reads this may have been ended by the same signal
            print(f"plda {options.stage}: {error}", file=sys.stderr, flush=True)
        return AGAIN
    return 0


def _add_flags(command: argparse.ArgumentParser, function: Callable[..., None]) -> None:
    command.description = inspect.getdoc(function)
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument(
        "--params", type=Path, required=True, metavar="FILE", help="params.yaml or a file like it"
    )
    for name in path_arguments(function):
        flag = "--" + name.replace("_", "-")
        command.add_argument(flag, dest=name, type=Path, required=True, metavar="PATH")


if __name__ == "__main__":
    sys.exit(main())
