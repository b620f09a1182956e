"""Rules that score and show."""


localrules:
    # they read each mask once or twice, at 2 to 4 ms: a job would wait in the queue for seconds of one core's work
    evaluate,
    report,


rule evaluate_cams:
    input:
        inputs("evaluate_cams"),
    output:
        outputs("evaluate_cams"),
    log:
        "logs/{run}/evaluate_cams.log",
    benchmark:
        "logs/{run}/evaluate_cams.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=settings("evaluate_cams"),
        command=command("evaluate_cams"),
    shell:
        "{params.command} 2>&1 | tee -i {log}"


rule evaluate:
    input:
        inputs("evaluate"),
    output:
        outputs("evaluate"),
    log:
        "logs/{run}/evaluate.log",
    benchmark:
        "logs/{run}/evaluate.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=settings("evaluate"),
        command=command("evaluate"),
    shell:
        "{params.command} 2>&1 | tee -i {log}"


rule report:
    input:
        inputs("report"),
    output:
        outputs("report"),
    log:
        "logs/{run}/report.log",
    benchmark:
        "logs/{run}/report.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=settings("report"),
        command=command("report"),
    shell:
        "{params.command} 2>&1 | tee -i {log}"
