"""The rule that packs predictions for the evaluation server of VOC's test set; not part of `all`."""


localrules:
    submission,


rule submission:
    # of the run `main`
    input:
        "workflow/submission.py",
        data=runs[MAIN]["index_data"].outputs,
        masks=runs[MAIN]["predict_masks"].outputs,
    output:
        Path(runs[MAIN]["predict_masks"].outputs[0]).parents[1] / "submission/VOC2012_comp6.tar.gz",
    log:
        "logs/submission.log",
    conda:
        "../envs/plda.yaml"
    shell:
        "python -m workflow.submission --data-set {input.data}"
        " --predictions {input.masks[0]} --submission {output} 2>&1 | tee -i {log}"
