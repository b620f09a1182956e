"""Rules that train and use the segmentation network."""


rule train_segmenter:
    input:
        inputs("train_segmenter"),
    output:
        outputs("train_segmenter"),
    log:
        "logs/{run}/train_segmenter.log",
    benchmark:
        "logs/{run}/train_segmenter.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=16000,
        runtime=720,
        gpu=1,
    params:
        settings=settings("train_segmenter"),
        command=command("train_segmenter"),
    shell:
        "{params.command} 2>&1 | tee {log}"


rule predict_masks:
    input:
        inputs("predict_masks"),
    output:
        outputs("predict_masks"),
    log:
        "logs/{run}/predict_masks.log",
    benchmark:
        "logs/{run}/predict_masks.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=120,
        gpu=1,
    params:
        settings=settings("predict_masks"),
        command=command("predict_masks"),
    shell:
        "{params.command} 2>&1 | tee {log}"
