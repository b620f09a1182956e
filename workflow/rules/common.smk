"""What every rule takes from dvc.yaml."""

from pathlib import Path

from snakemake.exceptions import WorkflowError

from workflow.stages import read_stages

if config:  # DVC and the stages would not see it
    raise WorkflowError("values are set in params.yaml, not by --config or --configfile")

stages = read_stages(Path("dvc.yaml"), Path("params.yaml"))


def outputs(name):
    """The stage's outputs; a path without an ending is a folder."""
    return [path if Path(path).suffix else directory(path) for path in stages[name].outputs]


def command(name):
    """The stage's command, its words on the terminal and in the rule's log."""
    return f"{stages[name].command} 2>&1 | tee {{log}}"
