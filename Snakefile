"""The pipeline for Snakemake. What a stage is stands in dvc.yaml; a rule adds what it needs to run."""

from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/cams.smk"
include: "workflow/rules/masks.smk"
include: "workflow/rules/segmentation.smk"
include: "workflow/rules/report.smk"


localrules:
    all,


rule all:
    default_target: True
    # every output of every stage: else a failed rerun could leave stale results that look finished
    input:
        [path for stage in stages.values() for path in stage.outputs],
