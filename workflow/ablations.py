"""Reads ablations.yaml: the runs to compare, and the complete params of each run.

python -m workflow.ablations RUN --params FILE     writes the params file of a run
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from plda.changes import with_changes
from plda.errors import InputError
from plda.files import write_text
from plda.params import Params, Section, check
from plda.yaml_file import read_yaml, yaml_text
from workflow.stages import MAIN, PARAMS

ABLATIONS = Path("ablations.yaml")

Name = Annotated[str, Field(pattern="^[A-Za-z0-9_][A-Za-z0-9_-]*$")]
Text = Annotated[str, Field(min_length=1)]
Changes = dict[str, Any]  # values by dotted name, see plda.changes


class Ablations(Section):
    """The content of ablations.yaml; the comments in the file explain its fields."""

    until: str
    baseline: str
    full: str | None = None
    metrics: Annotated[list[Text], Field(min_length=1)]
    repeats: Annotated[dict[Name, Changes], Field(min_length=1)]
    common: Changes
    runs: Annotated[dict[Name, Changes], Field(min_length=1)]

    def full_names(self) -> list[str]:
        """Return the names of all runs with all repeats, as in the paths of the results."""
        return [full_name(run, repeat) for run in self.runs for repeat in self.repeats]


def full_name(run: str, repeat: str) -> str:
    """Return the name of a run with a repeat."""
    return f"{run}-{repeat}"


def read_ablations(path: Path) -> Ablations:
    """Read the file and check what can be checked without params.yaml.

    Raises:
        InputError: the file is missing or not YAML, or a field is unknown, missing or wrong.
    """
    ablations = check(Ablations, read_yaml(path), path)
    if MAIN in ablations.runs:
        raise InputError(f"{path}: runs.{MAIN}: the name is reserved for params.yaml; choose another")
    if ablations.baseline not in ablations.runs:
        raise InputError(f"{path}: baseline: must be one of the runs, got {ablations.baseline!r}; add it")
    if ablations.full is not None and ablations.full not in ablations.runs:
        raise InputError(f"{path}: full: must be one of the runs, got {ablations.full!r}; add it")
    names = ablations.full_names()
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: runs, repeats: two runs have the same name {name}")
    return ablations


def read_params_of_runs(params_file: Path, ablations_file: Path) -> dict[str, dict[str, Any]]:
    """Return the complete params of every run by its full name: `main`, then those of `ablations_file`.

    Raises:
        InputError: one of the files or the params of a run are wrong.
    """
    params = read_yaml(params_file)
    check(Params, params, params_file)
    ablations = read_ablations(ablations_file)
    shared = with_changes(params, ablations.common, f"{ablations_file}: common.")
    runs = {MAIN: params}
    for run, changes in ablations.runs.items():
        for repeat, draw in ablations.repeats.items():
            for name in sorted(draw.keys() & (changes.keys() | ablations.common.keys())):
                place = f"runs.{run}" if name in changes else "common"
                raise InputError(f"{ablations_file}: {place}.{name}: repeats.{repeat} also sets it")
            values = with_changes(shared, changes, f"{ablations_file}: runs.{run}.")
            values = with_changes(values, draw, f"{ablations_file}: repeats.{repeat}.")
            checked = check(Params, values, f"{ablations_file}: run {full_name(run, repeat)}")
            if run == ablations.full and checked.train_segmenter.supervision != "masks":
                raise InputError(f"{ablations_file}: full: {run} must set train_segmenter.supervision: masks")
            runs[full_name(run, repeat)] = values
    return runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the params file of a run; return the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m workflow.ablations", description="Write the params file of a run."
    )
    parser.add_argument("run", metavar="RUN", help="a run and a repeat of ablations.yaml: cam-s0")
    parser.add_argument("--params", type=Path, required=True, metavar="FILE", help="output file")
    options = parser.parse_args(arguments)
    try:
        params = read_params_of_runs(PARAMS, ABLATIONS)
        if options.run not in params:
            raise InputError(f"{ABLATIONS}: has no run {options.run}")
        text = yaml_text(params[options.run])
        if not options.params.exists() or options.params.read_bytes() != text.encode():
            write_text(options.params, text)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
