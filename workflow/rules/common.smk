"""Values of dvc.yaml, params.yaml and ablations.yaml for the rules."""

from pathlib import Path

from snakemake.exceptions import WorkflowError

from workflow import locks
from workflow.ablations import ABLATIONS, read_params_of_runs
from workflow.given import fingerprint
from workflow.runs import output_patterns, read_runs
from workflow.stages import DECLARATION, MAIN, PARAMS
from workflow.times import refuse_future

if config:  # DVC and the stages would not see it
    raise WorkflowError("values are set in params.yaml, not by --config or --configfile")

defaults = workflow.resource_settings.default_resources or {}
for name in ("slurm_account", "slurm_partition"):
    if name in defaults and defaults[name].raw == "FILL_IN":
        raise WorkflowError(
            f"{name} is yours to fill in, in the profile of your cluster: see docs/cluster.md"
        )

runs = read_runs(DECLARATION, PARAMS, ABLATIONS)
params_of_runs = read_params_of_runs(PARAMS, ABLATIONS)

if workflow.is_main_process:  # not a job of it on a cluster
    refuse_future({path for stages in runs.values() for stage in stages.values() for path in stage.inputs})
    locks.hold(cluster=workflow.resource_settings.nodes is not None)
shell.prefix(locks.PREFIX)


def inputs(name):
    """Return the stage's inputs."""
    return lambda wildcards: runs[wildcards.run][name].inputs


def outputs(name):
    """Return the stage's outputs; a path without a suffix is a folder."""
    return [path if Path(path).suffix else directory(path) for path in output_patterns(runs, name)]


def settings(name):
    """Return the sections of params.yaml that affect the stage."""
    return lambda wildcards: runs[wildcards.run][name].settings


def given(name):
    """Return fingerprints of the user's folders that the stage reads; a change reruns the stage."""

    def known(wildcards):
        stage = runs[wildcards.run][name]
        unused = stage.settings.get("source", "folder") != "folder"  # index_data.folder
        return [] if unused else [fingerprint(Path(folder)) for folder in stage.given]

    return known


def command(name):
    """Return the stage's command."""
    return lambda wildcards: runs[wildcards.run][name].command


def gpus(wildcards):
    """Return the number of GPUs of a stage with a network: one per process, 0 if the run uses the CPU."""
    compute = params_of_runs[wildcards.run]["compute"]
    return 0 if compute["device"] == "cpu" else compute["devices"]


def growing(amount):
    """Return `amount` (memory or minutes) times the number of the attempt."""
    return lambda wildcards, attempt: amount * attempt
