"""The pipeline for Snakemake. What a stage is stands in dvc.yaml; a rule adds what it needs to run."""

from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/stages.smk"
include: "workflow/rules/submission.smk"
include: "workflow/rules/ablations.smk"


onstart:
    # importing networks takes seconds, so only when work begins
    from plda.models.backbones import refuse_unfit

    for params in params_of_runs.values():
        refuse_unfit(params)


localrules:
    all,
    ablations,


rule all:
    default_target: True
    # every output of every stage: else a failed rerun could leave stale results that look finished
    input:
        [path for stage in runs[MAIN].values() for path in stage.outputs],


rule ablations:
    # every output of every run, as far as it goes
    input:
        [path for stage in compared_stages for path in stage.outputs],
        rules.compare_runs.output,
