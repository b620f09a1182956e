"""Rules that score and show."""


rule evaluate:
    input:
        stages["evaluate"].inputs,
    output:
        outputs("evaluate"),
    log:
        "logs/evaluate.log",
    benchmark:
        "logs/evaluate.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        stages["evaluate"].settings,
    shell:
        command("evaluate")


rule report:
    input:
        stages["report"].inputs,
    output:
        outputs("report"),
    log:
        "logs/report.log",
    benchmark:
        "logs/report.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        stages["report"].settings,
    shell:
        command("report")
