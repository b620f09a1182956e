"""Rules that train on image tags and make class activation maps."""


rule train_cam:
    input:
        inputs("train_cam"),
    output:
        outputs("train_cam"),
    log:
        "logs/{run}/train_cam.log",
    benchmark:
        "logs/{run}/train_cam.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=growing(16000),
        runtime=720,  # of each attempt: it goes on where the last one stopped
        gpu=gpus,
    params:
        settings=settings("train_cam"),
        command=command("train_cam"),
    shell:
        # Slurm asks all of a job to leave: shell and tee do not before the trainer has kept where it stands
        "trap '' TERM; {params.command} 2>&1 | tee -i {log}"


rule infer_cams:
    input:
        inputs("infer_cams"),
    output:
        outputs("infer_cams"),
    log:
        "logs/{run}/infer_cams.log",
    benchmark:
        "logs/{run}/infer_cams.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
        gpu=gpus,
    params:
        settings=settings("infer_cams"),
        command=command("infer_cams"),
    shell:
        "{params.command} 2>&1 | tee -i {log}"
