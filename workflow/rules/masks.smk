"""Rules that turn maps into masks."""


rule train_boundary:
    input:
        inputs("train_boundary"),
    output:
        outputs("train_boundary"),
    log:
        "logs/{run}/train_boundary.log",
    benchmark:
        "logs/{run}/train_boundary.benchmark.tsv"
    # where no run trains it, a job would ask for a GPU to write three empty files
    localrule: not any(params["train_boundary"]["enabled"] for params in params_of_runs.values())
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=growing(16000),
        runtime=480,  # of each attempt: it goes on where the last one stopped
        gpu=gpus,
    params:
        settings=settings("train_boundary"),
        command=command("train_boundary"),
    shell:
        # Slurm asks all of a job to leave: shell and tee do not before the trainer has kept where it stands
        "trap '' TERM; {params.command} 2>&1 | tee -i {log}"


rule make_masks:
    input:
        inputs("make_masks"),
    output:
        outputs("make_masks"),
    log:
        "logs/{run}/make_masks.log",
    benchmark:
        "logs/{run}/make_masks.benchmark.tsv"
    conda:
        "../envs/plda.yaml"
    threads: 8
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
        gpu=gpus,
    params:
        settings=settings("make_masks"),
        command=command("make_masks"),
    shell:
        "{params.command} 2>&1 | tee -i {log}"
