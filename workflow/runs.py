"""From ablations.yaml to the stages of every run, as dvc.yaml declares them for the run `main`.

A run's stages are those of `main` in a folder of its own. But a stage that would come out as in an earlier
run is that run's: an ablation of the segmentation network trains no new CAM network.
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

_PLACE = re.compile(rf"^results/{MAIN}/(\w+)/")  # how a path of dvc.yaml begins


def read_runs(dvc_file: Path, params_file: Path, ablations_file: Path) -> dict[str, dict[str, Stage]]:
    """The stages of every run, `main` first; a stage that a run shares is the one of the run that makes it.

    Raises:
        InputError: `params_file` or `ablations_file` is wrong, or two repeats would be the same run.
        KeyError: a `${name}` in `dvc_file` stands nowhere.
    """
    params = read_params_of_runs(params_file, ablations_file)
    declaration = yaml.safe_load(dvc_file.read_text(encoding="utf-8"))
    makers = share({run: fill_stages(declaration, values) for run, values in params.items()})
    runs = {
        run: {
            name: replace(stage, run=makers[run][name])
            for name, stage in fill_stages(_relocated(declaration, makers[run]), values).items()
        }
        for run, values in params.items()
    }
    _check_stages(runs, read_ablations(ablations_file), ablations_file)
    return runs


def share(runs: Mapping[str, Mapping[str, Stage]]) -> dict[str, dict[str, str]]:
    """Who makes each stage of each run: the first run in which it, and all upstream of it, is the same.

    Args:
        runs: the stages of each run, with the paths of `main`; a stage stands after those that it reads.

    Returns:
        {run: {stage: the run that makes it}}
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
    """The stages, up to the last one asked for, of each run in `ablations`, by its full name."""
    return {run: stages_until(runs[run], ablations.until) for run in ablations.full_names()}


def output_patterns(runs: Mapping[str, Mapping[str, Stage]], name: str) -> list[str]:
    """Snakemake's patterns of a stage's outputs; `{run}` is any of the runs that make it themselves."""
    makers = "|".join(run for run, stages in runs.items() if stages[name].run == run)
    return [_PLACE.sub(rf"results/{{run,{makers}}}/\1/", path) for path in runs[MAIN][name].outputs]


def _relocated(declaration: Mapping[str, Any], makers: Mapping[str, str]) -> dict[str, Any]:
    """dvc.yaml's content with the paths of another run, whose commands first write its params file.

    Paths are changed before any value of params.yaml is filled in, so a user's own path is never touched.
    """

    def move(text: str) -> str:
        return _PLACE.sub(lambda match: f"results/{makers[match[1]]}/{match[1]}/", text)

    relocated: dict[str, Any] = map_texts(declaration, move)
    for name, stanza in relocated["stages"].items():
        if makers[name] != MAIN:
            # no job of its own: Snakemake would look at a stage's settings only when that job is up to date
            own = f"--params results/{makers[name]}/{PARAMS}"
            command = stanza["cmd"].replace(f"--params {PARAMS}", own, 1)
            stanza["cmd"] = f"python -m workflow.ablations {makers[name]} {own} && {command}"
    return relocated


def _check_stages(runs: Mapping[str, Mapping[str, Stage]], ablations: Ablations, path: Path) -> None:
    if ablations.until not in runs[MAIN]:
        stages = ", ".join(runs[MAIN])
        raise InputError(f"{path}: until: {ablations.until!r} is no stage of dvc.yaml: {stages}")
    for run in ablations.runs:
        made: dict[str, str] = {}
        for repeat in ablations.repeats:
            maker = runs[full_name(run, repeat)][ablations.until].run
            if maker in made:  # else the interval would be too narrow, without a word
                raise InputError(
                    f"{path}: repeats.{repeat}: up to {ablations.until}, run {run} comes out as with "
                    f"{made[maker]}, which is no second measurement"
                )
            made[maker] = repeat
