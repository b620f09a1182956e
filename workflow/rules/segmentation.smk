"""Rules that train and use the segmentation network."""


rule train_segmenter:
    input:
        stages["train_segmenter"].inputs,
    output:
        outputs("train_segmenter"),
    log:
        "logs/train_segmenter.log",
    benchmark:
        "logs/train_segmenter.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=16000,
        runtime=720,
        gpu=1,
    params:
        stages["train_segmenter"].settings,
    shell:
        command("train_segmenter")


rule predict_masks:
    input:
        stages["predict_masks"].inputs,
    output:
        outputs("predict_masks"),
    log:
        "logs/predict_masks.log",
    benchmark:
        "logs/predict_masks.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=120,
        gpu=1,
    params:
        stages["predict_masks"].settings,
    shell:
        command("predict_masks")
