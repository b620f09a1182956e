"""Reads dvc.yaml and params.yaml into {name: Stage}, which is all that the Snakemake rules know of a stage.

Understood is the part of DVC's format that our dvc.yaml uses: `vars` with plain values, `${...}` of these and
of params.yaml, and stages with cmd, deps, params, outs, metrics and plots. A test holds the result against
DVC's own reading.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plda.params import read_params


@dataclass(frozen=True)
class Stage:
    """One stage of the run.

    Attributes:
        name: as everywhere.
        command: what a shell runs.
        inputs: paths of the data and the code it reads.
        outputs: paths it writes; one without an ending is a folder.
        settings: the sections of params.yaml it obeys, by name.
    """

    name: str
    command: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: dict[str, Any]


def read_stages(dvc_file: Path, params_file: Path) -> dict[str, Stage]:
    """Read the stages, in the order of `dvc_file`.

    Raises:
        InputError: a key or a value in `params_file` is wrong.
        KeyError: a `${name}` stands nowhere.
    """
    read_params(params_file)
    params = yaml.safe_load(params_file.read_text())
    content = yaml.safe_load(dvc_file.read_text())
    values = dict(params)
    for group in content["vars"]:
        values |= group
    return {name: _stage(name, _filled(stage, values), params) for name, stage in content["stages"].items()}


def _stage(name: str, stage: Mapping[str, Any], params: Mapping[str, Any]) -> Stage:
    outputs = [_path(o) for kind in ("outs", "metrics", "plots") for o in stage.get(kind, [])]
    settings = {section: params[section] for section in stage.get("params", [])}
    return Stage(name, stage["cmd"], tuple(stage.get("deps", [])), tuple(outputs), settings)


def _path(output: str | Mapping[str, Any]) -> str:
    """An output is its path, or one path with flags."""
    return output if isinstance(output, str) else next(iter(output))


def _filled(node: Any, values: Mapping[str, Any]) -> Any:
    """`node` with each `${a.b}` in its texts replaced by values[a][b]."""
    if isinstance(node, str):
        return re.sub(r"\$\{([\w.]+)\}", lambda match: str(_look_up(values, match[1])), node)
    if isinstance(node, list):
        return [_filled(item, values) for item in node]
    if isinstance(node, dict):
        return {_filled(key, values): _filled(item, values) for key, item in node.items()}
    return node


def _look_up(values: Mapping[str, Any], name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values
