"""One rule for each stage: what it needs to run is in the table, all else is in dvc.yaml."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """What a stage needs to run.

    Attributes:
        mem_mb: memory. Every attempt asks for more, as the one before may have run out of it.
        minutes: so every attempt of a stage that starts again; one that trains goes on where it stopped.
        threads: CPU threads.
        network: whether it computes with a network, on a GPU for each process if there are GPUs.
        trains: whether it keeps its state when it is asked to leave.
        local: whether it runs where Snakemake does, and not as a job of a cluster.
    """

    mem_mb: int
    minutes: int
    threads: int = 1
    network: bool = False
    trains: bool = False
    local: bool = False


TRAINS = {"threads": 8, "network": True, "trains": True}
INFERS = {"threads": 8, "network": True}
# nobody trains a boundary network: a job would ask for a GPU to write three empty files
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
            photos=photos(stage),
            command=command(stage),
        shell:
            # Slurm asks all of a job to leave: shell and tee do not before the trainer has kept its state
            ("trap '' TERM; " if needs.trains else "") + "{params.command} 2>&1 | tee -i {log}"
