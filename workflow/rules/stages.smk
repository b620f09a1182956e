"""One rule for all stages, with a table of the resources of each. dvc.yaml declares everything else."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """The resources of a stage.

    Attributes:
        mem_mb: memory of the first attempt; each further attempt gets as much again.
        minutes: time limit of the first attempt; each further one gets as much again, except of a stage that
            trains, because that resumes.
        threads: CPU threads.
        network: whether the stage uses a network, and so a GPU for each process, if there are GPUs.
        trains: whether the stage saves its state at SIGTERM.
        local: whether the stage runs on the machine of Snakemake, not as a cluster job.
    """

    mem_mb: int
    minutes: int
    threads: int = 1
    network: bool = False
    trains: bool = False
    local: bool = False


TRAINS = {"threads": 8, "network": True, "trains": True}
INFERS = {"threads": 8, "network": True}
# if no run trains a boundary network, the stage writes three empty files and needs no GPU job
NO_BOUNDARY = not any(params["train_boundary"]["enabled"] for params in params_of_runs.values())

STAGES = {
    "download_data": Needs(2000, 720, local=True),  # compute nodes often have no internet
    "index_data": Needs(4000, 120),
    "download_backbone": Needs(4000, 30, local=True),
    "train_cam": Needs(16000, 720, **TRAINS),
    "infer_cams": Needs(8000, 240, **INFERS),
    "train_boundary": Needs(16000, 480, **TRAINS, local=NO_BOUNDARY),
    "make_masks": Needs(8000, 240, **INFERS),
    "evaluate_cams": Needs(4000, 60),
    "relabel_masks": Needs(16000, 720, **TRAINS),
    "train_segmenter": Needs(16000, 720, **TRAINS),
    "predict_masks": Needs(8000, 120, **INFERS),
    "evaluate": Needs(4000, 60, local=True),  # reads each mask once or twice, at 2 to 4 ms
    "report": Needs(4000, 30, local=True),
}

for stage, needs in STAGES.items():

    rule:
        name:
            stage
        input:
            inputs(stage),
        output:
            outputs(stage),
        log:
            f"logs/{{run}}/{stage}.log",
        benchmark:
            f"logs/{{run}}/{stage}.benchmark.tsv"
        localrule: needs.local
        conda:
            "../envs/plda.yaml"
        threads: needs.threads
        resources:
            **({"gpu": gpus} if needs.network else {}),
            mem_mb=growing(needs.mem_mb),
            runtime=needs.minutes if needs.trains else growing(needs.minutes),
        params:
            settings=settings(stage),
            given=given(stage),
            command=command(stage),
        shell:
            # Slurm sends SIGTERM to all processes of a job; shell and tee must outlive the trainer
            ("trap '' TERM; " if needs.trains else "") + "{params.command} 2>&1 | tee -i {log}"
