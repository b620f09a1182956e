"""Rules that train on image tags and make class activation maps."""


rule train_cam:
    input:
        stages["train_cam"].inputs,
    output:
        outputs("train_cam"),
    log:
        "logs/train_cam.log",
    benchmark:
        "logs/train_cam.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=16000,
        runtime=720,
        gpu=1,
    params:
        stages["train_cam"].settings,
    shell:
        command("train_cam")


rule infer_cams:
    input:
        stages["infer_cams"].inputs,
    output:
        outputs("infer_cams"),
    log:
        "logs/infer_cams.log",
    benchmark:
        "logs/infer_cams.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=1,
    params:
        stages["infer_cams"].settings,
    shell:
        command("infer_cams")
