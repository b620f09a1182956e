"""Rules that compare the runs of ablations.yaml."""

from workflow.ablations import read_ablations
from workflow.runs import compared

ablations = read_ablations(ABLATIONS)
compared_runs = compared(runs, ablations)
compared_stages = {(s.run, s.name): s for stages in compared_runs.values() for s in stages.values()}.values()


localrules:
    compare_runs,


rule compare_runs:
    input:
        "workflow/ablation_table.py",
        "workflow/ablation_page.py",
        "workflow/ablation_page.html.j2",
        "plda/refinement/steps.py",
        "plda/report/charts.py",
        "plda/report/facts.py",
        "plda/report/page.py",
        "plda/report/style.css.j2",
        [path for stage in compared_stages for path in stage.metrics],
    output:
        table="results/ablations.csv",
        summary="results/ablations.md",
        page="results/ablations.html",
    log:
        "logs/compare_runs.log",
    conda:
        "../envs/plda.yaml"
    params:
        ablations=ablations.model_dump(),
    shell:
        "python -m workflow.ablation_table --table {output.table} --summary {output.summary}"
        " --page {output.page} 2>&1 | tee -i {log}"
