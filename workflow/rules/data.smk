"""Rules that bring in what comes from outside: the data set and the first weights."""


localrules:
    # they need the internet, which compute nodes often do not have
    download_data,
    download_backbone,


rule download_data:
    input:
        inputs("download_data"),
    output:
        outputs("download_data"),
    log:
        "logs/{run}/download_data.log",
    benchmark:
        "logs/{run}/download_data.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=720,
    params:
        settings=settings("download_data"),
        command=command("download_data"),
    shell:
        "{params.command} 2>&1 | tee -i {log}"


rule index_data:
    input:
        inputs("index_data"),
    output:
        outputs("index_data"),
    log:
        "logs/{run}/index_data.log",
    benchmark:
        "logs/{run}/index_data.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        settings=settings("index_data"),
        photos=photos("index_data"),
        command=command("index_data"),
    shell:
        "{params.command} 2>&1 | tee -i {log}"


rule download_backbone:
    input:
        inputs("download_backbone"),
    output:
        outputs("download_backbone"),
    log:
        "logs/{run}/download_backbone.log",
    benchmark:
        "logs/{run}/download_backbone.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        settings=settings("download_backbone"),
        command=command("download_backbone"),
    shell:
        "{params.command} 2>&1 | tee -i {log}"
