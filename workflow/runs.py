"""The stages of every run of ablations.yaml, made from those that dvc.yaml declares for the run `main`.

A run has the stages of `main`, in a separate folder. But it shares a stage with an earlier run if the result
would be the same: an ablation of the segmentation network trains no new CAM network.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from plda.errors import InputError
from workflow.ablations import Ablations, full_name, read_ablations, read_params_of_runs
from workflow.stages import MAIN, PARAMS, Stage, fill_stages, map_texts, stages_until, upstream

_PLACE = re.compile(rf"^results/{MAIN}/(\w+)/")  # prefix of the paths in dvc.yaml


def read_runs(dvc_file: Path, params_file: Path, ablations_file: Path) -> dict[str, dict[str, Stage]]:
    """Return the stages of every run, `main` first; a shared stage is that of the run that makes it.

    Raises:
        InputError: `params_file` or `ablations_file` is wrong, or two repeats of a run are identical.
        KeyError: a `${name}` in `dvc_file` is not defined.
    """
    params = read_params_of_runs(params_file, ablations_file)
    declaration = yaml.safe_load(dvc_file.read_text(encoding="utf-8"))
    makers = assign_makers({run: fill_stages(declaration, values) for run, values in params.items()})
    runs = {
        run: {
            name: replace(stage, run=makers[run][name])
            for name, stage in fill_stages(_relocated(declaration, makers[run]), values).items()
        }
        for run, values in params.items()
    }
    _check_stages(runs, read_ablations(ablations_file), ablations_file)
    return runs


def assign_makers(runs: Mapping[str, Mapping[str, Stage]]) -> dict[str, dict[str, str]]:
    """Find the run that makes each stage of each run: the first in which it and all upstream are the same.

    Args:
        runs: stages of each run, with the paths of `main`; a stage comes after those that it reads.

    Returns:
        {run: {stage: run that makes it}}
    """
    makers: dict[str, dict[str, str]] = {}
    for run, stages in runs.items():
        makers[run] = {}
        for name, stage in stages.items():
            before = [n for n in upstream(stage, stages) if n in makers[run]]
            makers[run][name] = next(
                (
                    earlier
                    for earlier in makers
                    if earlier != run
                    and runs[earlier][name] == stage
                    and all(makers[earlier][n] == makers[run][n] for n in before)
                ),
                run,
            )
    return makers


def compared(runs: Mapping[str, Mapping[str, Stage]], ablations: Ablations) -> dict[str, dict[str, Stage]]:
    """Return the stages, up to `until`, of each run in `ablations`, by its full name."""
    return {run: stages_until(runs[run], ablations.until) for run in ablations.full_names()}


def output_patterns(runs: Mapping[str, Mapping[str, Stage]], name: str) -> list[str]:
    """Return Snakemake's patterns of a stage's outputs; `{run}` is any run that makes the stage itself."""
    makers = "|".join(run for run, stages in runs.items() if stages[name].run == run)
    return [_PLACE.sub(rf"results/{{run,{makers}}}/\1/", path) for path in runs[MAIN][name].outputs]


def _relocated(declaration: Mapping[str, Any], makers: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of dvc.yaml with the paths of another run; its commands first write its params file.

    Paths are changed before values of params.yaml are filled in, so the user's own paths are never changed.
    """

    def move(text: str) -> str:
        return _PLACE.sub(lambda match: f"results/{makers[match[1]]}/{match[1]}/", text)

    relocated: dict[str, Any] = map_texts(declaration, move)
    for name, stanza in relocated["stages"].items():
        if makers[name] != MAIN:
            # not a separate job: Snakemake would compare a stage's settings only if that job is up to date
            own = f"--params results/{makers[name]}/{PARAMS}"
            command = stanza["cmd"].replace(f"--params {PARAMS}", own, 1)
            stanza["cmd"] = f"python -m workflow.ablations {makers[name]} {own} && {command}"
    return relocated


def _check_stages(runs: Mapping[str, Mapping[str, Stage]], ablations: Ablations, path: Path) -> None:
    if ablations.until not in runs[MAIN]:
        stages = ", ".join(runs[MAIN])
        raise InputError(f"{path}: until: {ablations.until!r} is not a stage of dvc.yaml: {stages}")
    for run in ablations.runs:
        made: dict[str, str] = {}
        for repeat in ablations.repeats:
            maker = runs[full_name(run, repeat)][ablations.until].run
            if maker in made:  # otherwise the interval would be too narrow, without a warning
                raise InputError(
                    f"{path}: repeats.{repeat}: up to {ablations.until}, run {run} is identical to that with "
                    f"{made[maker]}; remove one of the two repeats"
                )
            made[maker] = repeat
