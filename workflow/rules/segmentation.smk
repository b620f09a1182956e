"""Rules that train and use the segmentation network."""


rule relabel_masks:
    input:
        inputs("relabel_masks"),
    output:
        outputs("relabel_masks"),
    log:
        "logs/{run}/relabel_masks.log",
    benchmark:
        "logs/{run}/relabel_masks.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=growing(16000),
        runtime=720,  # of each attempt: it goes on where the last one stopped
        gpu=gpus,
    params:
        settings=settings("relabel_masks"),
        command=command("relabel_masks"),
    shell:
        # Slurm asks all of a job to leave: shell and tee do not before the trainer has kept where it stands
        "trap '' TERM; {params.command} 2>&1 | tee -i {log}"


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
        mem_mb=growing(16000),
        runtime=720,  # of each attempt: it goes on where the last one stopped
        gpu=gpus,
    params:
        settings=settings("train_segmenter"),
        command=command("train_segmenter"),
    shell:
        # Slurm asks all of a job to leave: shell and tee do not before the trainer has kept where it stands
        "trap '' TERM; {params.command} 2>&1 | tee -i {log}"


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
        mem_mb=growing(8000),
        runtime=growing(120),
        gpu=gpus,
    params:
        settings=settings("predict_masks"),
        command=command("predict_masks"),
    shell:
        "{params.command} 2>&1 | tee -i {log}"


classes, index, _ = runs[MAIN]["index_data"].outputs
predictions, _ = runs[MAIN]["predict_masks"].outputs


localrules:
    submission,


rule submission:
    # of the run `main`, for the server that alone has the masks of VOC's test set; `all` does not ask for it
    input:
        "workflow/submission.py",
        classes=classes,
        index=index,
        predictions=predictions,
    output:
        Path(predictions).parents[1] / "submission" / "VOC2012_comp6.tar.gz",
    log:
        "logs/submission.log",
    conda:
        "../envs/plda.yaml"
    shell:
        "python -m workflow.submission --classes {input.classes} --index {input.index}"
        " --predictions {input.predictions} --submission {output} 2>&1 | tee -i {log}"
