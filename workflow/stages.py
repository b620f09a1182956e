"""Reads the stages of a run from dvc.yaml and its params: all that the Snakemake rules know about a stage.

It supports the part of DVC's format that our dvc.yaml uses: `vars` with plain values, `${...}` of these and
of params.yaml, and stages with cmd, deps, params, outs, metrics and plots. A test compares the result with
DVC's own reading. A command may use `vars` only: a shell runs it, and values of params.yaml can be any text.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plda.errors import InputError

DECLARATION, PARAMS = Path("dvc.yaml"), Path("params.yaml")
_NAME = re.compile(r"\$\{([\w.]+)\}")
MAIN = "main"  # the run with the unchanged params.yaml; dvc.yaml contains its paths


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: name of the stage, as in dvc.yaml.
        run: name of the run that makes the stage; it is part of the output paths.
        command: shell command.
        inputs: paths of the data and code that the stage reads.
        given: paths of the user's own files and folders that the stage reads, named in params.yaml.
        outputs: paths that the stage writes; a path without an extension is a folder.
        metrics: outputs that contain metrics.
        in_git: outputs that are stored in git, not in DVC's cache.
        settings: sections of params.yaml that the stage depends on, by name.
    """

    name: str
    run: str
    command: str
    inputs: tuple[str, ...]
    given: tuple[str, ...]
    outputs: tuple[str, ...]
    metrics: tuple[str, ...]
    in_git: tuple[str, ...]
    settings: dict[str, Any]


def fill_stages(declaration: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Stage]:
    """Return the stages of `declaration`, as parsed from dvc.yaml, for a run with `params`.

    Raises:
        InputError: a command uses a value of params.yaml.
        KeyError: a `${name}` is not defined.
    """
    paths = {name: path for group in declaration["vars"] for name, path in group.items()}
    values = {**params, **paths}

    def fill(text: str) -> str:
        """Replace each `${a.b}` in `text` by values[a][b]."""
        return _NAME.sub(lambda match: str(_look_up(values, match[1])), text)

    stages = {}
    for name, stanza in declaration["stages"].items():
        for value in set(_NAME.findall(stanza["cmd"])) - set(paths):
            raise InputError(
                f"{DECLARATION}: stages.{name}.cmd: ${{{value}}} must be one of `vars`: a value of {PARAMS} "
                "must not reach a shell"
            )
        given = [fill(path) for path in stanza.get("deps", []) if set(_NAME.findall(path)) - set(paths)]
        stages[name] = _stage(name, map_texts(stanza, fill), tuple(given), params)
    return stages


def upstream(stage: Stage, stages: Mapping[str, Stage]) -> list[str]:
    """Return the names of the stages whose outputs `stage` reads."""
    return [name for name, other in stages.items() if set(other.outputs) & set(stage.inputs)]


def stages_until(stages: Mapping[str, Stage], last: str) -> dict[str, Stage]:
    """Return the stage `last` and all stages that it needs."""
    needed = {last}
    for name in reversed(list(stages)):
        if name in needed:
            needed |= set(upstream(stages[name], stages))
    return {name: stage for name, stage in stages.items() if name in needed}


def map_texts(node: Any, change: Callable[[str], str]) -> Any:
    """Return `node` with `change` applied to every string in its lists and dicts, including keys."""
    if isinstance(node, str):
        return change(node)
    if isinstance(node, list):
        return [map_texts(item, change) for item in node]
    if isinstance(node, dict):
        return {change(key): map_texts(item, change) for key, item in node.items()}
    return node


def _stage(name: str, stanza: Mapping[str, Any], given: tuple[str, ...], params: Mapping[str, Any]) -> Stage:
    outputs = [_with_flags(o) for kind in ("outs", "metrics", "plots") for o in stanza.get(kind, [])]
    return Stage(
        name=name,
        run=MAIN,
        command=stanza["cmd"],
        inputs=tuple(path for path in stanza.get("deps", []) if path not in given),
        given=given,
        outputs=tuple(path for path, _ in outputs),
        metrics=tuple(path for path, _ in map(_with_flags, stanza.get("metrics", []))),
        in_git=tuple(path for path, flags in outputs if not flags.get("cache", True)),
        settings={section: params[section] for section in stanza.get("params", [])},
    )


def _with_flags(output: str | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the path and flags of an output, which is a path or {path: flags}."""
    return (output, {}) if isinstance(output, str) else next(iter(output.items()))


def _look_up(values: Mapping[str, Any], name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values
