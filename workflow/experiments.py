"""Saves each run of ablations.yaml as a DVC experiment with its name: `dvc metrics diff cam-s0 plda-s0`.

A DVC experiment is a commit on top of HEAD that is on no branch, with the ref
refs/exps/<first two digits of HEAD>/<the others>/<name>. `dvc exp save` refuses to write one if any output of
any stage is missing. A run needs less: the working tree's tracked files, its params as params.yaml, and its
metrics, tables and curves in place of those of the run `main`. So this module writes the commit with git's
plumbing commands and a separate index; working tree, index and branches do not change.

    python -m workflow.experiments     after `snakemake --cores all ablations`
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plda.errors import InputError
from plda.yaml_file import yaml_text
from workflow.ablations import ABLATIONS, read_ablations, read_params_of_runs
from workflow.runs import compared, read_runs
from workflow.stages import DECLARATION, MAIN, PARAMS, Stage


class Git:
    """Git commands on the repository of the current folder, with `index` instead of the user's index."""

    def __init__(self, index: Path) -> None:
        self._environment = {**os.environ, "GIT_INDEX_FILE": str(index)}

    def __call__(self, *arguments: str, text: str = "") -> str:
        """Run a command with `text` as its input and return its output.

        Raises:
            InputError: the command failed; the message is git's own.
        """
        run = subprocess.run(
            ["git", *arguments], input=text, env=self._environment, capture_output=True, encoding="utf-8"
        )
        if run.returncode:
            raise InputError(f"git {arguments[0]}: {run.stderr.strip()}")
        return run.stdout.strip()


def run_files(
    main: Mapping[str, Stage], made: Mapping[str, Stage], params: Mapping[str, Any]
) -> dict[str, str | None]:
    """Return the files that replace those of `main` in a run's experiment.

    Args:
        main: stages of `main`.
        made: stages that the run made or shares.
        params: params of the run.

    Returns:
        Text by path; None for a file that the run does not have.

    Raises:
        InputError: a file is missing.
    """
    files: dict[str, str | None] = {str(PARAMS): yaml_text(params)}
    for name, stage in main.items():
        files |= dict.fromkeys(stage.in_git)
        if name in made:
            files |= {
                place: _text(Path(path)) for place, path in zip(stage.in_git, made[name].in_git, strict=True)
            }
    return files


def keep(git: Git, name: str, files: Mapping[str, str | None], tree: str, parent: str) -> None:
    """Write one experiment; replace an experiment with the same name on top of `parent`.

    Args:
        git: git commands; their index is overwritten.
        name: name of the run.
        files: text by path; None removes the file.
        tree: git tree with all other files.
        parent: commit under which DVC shows the experiment.
    """
    git("read-tree", tree)
    for path, text in files.items():
        if text is None:
            git("update-index", "--force-remove", path)
        else:
            blob = git("hash-object", "-w", "--stdin", text=text)
            git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
    ref, own = f"refs/exps/{parent[:2]}/{parent[2:]}/{name}", git("write-tree")
    if git("for-each-ref", "--format=%(tree)", ref) != own:  # an unchanged experiment keeps its date
        git("update-ref", ref, git("commit-tree", own, "-p", parent, "-m", f"run {name}"))


def _head(git: Git) -> str:
    try:
        return git("rev-parse", "--verify", "HEAD")
    except InputError as error:
        raise InputError(f"DVC experiments need a commit: run `git commit` first ({error})") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error.strerror}; run `snakemake --cores all ablations` first"
        ) from error


def main() -> int:
    """Save every run; return the exit status: 0, or 2 for bad input."""
    try:
        runs = read_runs(DECLARATION, PARAMS, ABLATIONS)
        params = read_params_of_runs(PARAMS, ABLATIONS)
        experiments = {
            run: run_files(runs[MAIN], made, params[run])
            for run, made in compared(runs, read_ablations(ABLATIONS)).items()
        }
        with tempfile.TemporaryDirectory() as folder:
            git = Git(Path(folder) / "index")
            head = _head(git)
            git("read-tree", head)
            git("add", "--update", ":/")  # uncommitted changes produced the results too
            tree = git("write-tree")
            for run, files in experiments.items():
                keep(git, run, files, tree, head)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Saved as DVC experiments: {', '.join(experiments)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
