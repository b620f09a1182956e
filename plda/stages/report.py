"""Stage report."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd

from plda.data.data_set import DataSet
from plda.data.tags import doubts, occurrences
from plda.files import write_text
from plda.masks.cams import Cams
from plda.masks.estimate import read_estimates
from plda.masks.folder import Masks, mask_path
from plda.params import Params
from plda.report.facts import code_fact, data_facts, machine_facts, method_facts
from plda.report.gallery import choose, choose_worst, make_rows
from plda.report.page import render
from plda.scoring.images import score_images


def report(
    data_set: Path,
    backbone_origins: Path,
    cam_history: Path,
    cam_machine: Path,
    cams: Path,
    boundary_history: Path,
    pseudo_masks: Path,
    segmenter_history: Path,
    segmenter_machine: Path,
    predictions: Path,
    estimates: Path,
    cam_metrics: Path,
    cam_class_scores: Path,
    seed_curve: Path,
    metrics: Path,
    class_scores: Path,
    page: Path,
    *,
    params: Params,
) -> None:
    """Write the report page: settings, scores, training curves, and images with their masks.

    Args:
        data_set: folder of the data set, see `plda.data.data_set`.
        backbone_origins: origins of the first weights.
        cam_history: losses and learning rate of the CAM network by epoch.
        cam_machine: hardware and software that the CAM network was trained on.
        cams: class activation maps (CAMs) of the training images.
        boundary_history: losses and learning rate of the boundary network; no rows if it was not trained.
        pseudo_masks: folder of pseudo-masks.
        segmenter_history: losses and learning rate of the segmentation network by epoch.
        segmenter_machine: hardware and software that the segmentation network was trained on.
        predictions: folder of predicted masks.
        estimates: expected IoU of each predicted mask.
        cam_metrics: scores of seeds and pseudo-masks, in percent.
        cam_class_scores: IoU, precision and recall of seeds and pseudo-masks by class.
        seed_curve: scores of the seeds for a range of background scores.
        metrics: scores of the predictions, and their mean expected IoU.
        class_scores: IoU, precision and recall of the predictions by class.
        page: output: one HTML file that needs no other file.
        params: the whole params file; its section `report` says how many images the gallery shows.
    """
    settings = params.model_dump(exclude={"compute"})  # which affects no result
    data = DataSet(data_set)
    names, entries, train = data.classes, data.entries, data.training
    predicted = [entry for entry in entries if mask_path(predictions, entry).exists()]
    val = [entry for entry in predicted if entry.split == "val"]
    expected = read_estimates(estimates, predicted)
    of_train, _ = score_images(data, train, Masks(pseudo_masks))
    of_val, confusion = score_images(data, val, Masks(predictions))
    scores = of_train | of_val
    order = of_train | (of_val or {entry.key: expected[entry.key] for entry in val})
    tagged = occurrences(train, names)
    machines = {"CAM network": cam_machine, "segmentation network": segmenter_machine}
    facts = {
        "Data": data_facts(entries, names, settings),
        "Method": method_facts(settings, json.loads(backbone_origins.read_bytes())),
        "Where": {
            **machine_facts({name: json.loads(path.read_bytes()) for name, path in machines.items()}),
            "Code": code_fact(),
        },
    }
    html = render(
        classes=names,
        params=settings,
        facts=facts,
        images=Counter(entry.split for entry in entries),
        tagged=tagged,
        doubts=doubts(tagged, len(train)),
        scored=Counter(entry.split for entry in [*train, *val] if entry.mask),
        metrics={
            **json.loads(cam_metrics.read_text(encoding="utf-8")),
            **json.loads(metrics.read_text(encoding="utf-8")),
        },
        class_scores=pd.concat([read_class_scores(cam_class_scores), read_class_scores(class_scores)]),
        confusion=confusion,
        curve=pd.read_csv(seed_curve),
        cam_history=pd.read_csv(cam_history),
        boundary_history=pd.read_csv(boundary_history),
        segmenter_history=pd.read_csv(segmenter_history),
        rows=make_rows(
            data,
            choose(entries, params.report.gallery),
            choose_worst(entries, order, params.report.worst),
            scores,
            expected,
            Cams(cams),
            pseudo_masks,
            predictions,
        ),
    )
    write_text(page, html)
    print(page)


def read_class_scores(path: Path) -> pd.DataFrame:
    """Read a table of `plda.scoring.summary.class_table`; class names such as "NA" and "7" stay text."""
    return pd.read_csv(path, dtype={"class": str}, keep_default_na=False, na_values={"iou": [""]})
