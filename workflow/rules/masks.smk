"""Rules that turn maps into masks."""


rule make_masks:
    input:
        stages["make_masks"].inputs,
    output:
        outputs("make_masks"),
    log:
        "logs/make_masks.log",
    benchmark:
        "logs/make_masks.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=1,
    params:
        stages["make_masks"].settings,
    shell:
        command("make_masks")
