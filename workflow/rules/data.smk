"""Rules that bring in what comes from outside: the data set and the first weights."""


rule index_data:
    input:
        stages["index_data"].inputs,
    output:
        outputs("index_data"),
    log:
        "logs/index_data.log",
    benchmark:
        "logs/index_data.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        stages["index_data"].settings,
    shell:
        command("index_data")


rule download_backbone:
    input:
        stages["download_backbone"].inputs,
    output:
        outputs("download_backbone"),
    log:
        "logs/download_backbone.log",
    benchmark:
        "logs/download_backbone.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        stages["download_backbone"].settings,
    shell:
        command("download_backbone")
