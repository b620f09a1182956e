"""What every rule takes from dvc.yaml, params.yaml and ablations.yaml."""

from pathlib import Path

from snakemake.exceptions import WorkflowError

from workflow.ablations import ABLATIONS
from workflow.runs import output_patterns, read_runs
from workflow.stages import DECLARATION, MAIN, PARAMS

if config:  # DVC and the stages would not see it
    raise WorkflowError("values are set in params.yaml, not by --config or --configfile")

runs = read_runs(DECLARATION, PARAMS, ABLATIONS)


def inputs(name):
    """The stage's inputs."""
    return lambda wildcards: runs[wildcards.run][name].inputs


def outputs(name):
    """The stage's outputs; a path without an ending is a folder."""
    return [path if Path(path).suffix else directory(path) for path in output_patterns(runs, name)]


def settings(name):
    """The sections of the params that the stage obeys."""
    return lambda wildcards: runs[wildcards.run][name].settings


def command(name):
    """The stage's command."""
    return lambda wildcards: runs[wildcards.run][name].command
