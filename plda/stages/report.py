"""Stage report."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.index import read_index
from plda.data.tags import doubts, occurrences
from plda.files import write_text
from plda.masks.cams import Cams
from plda.masks.estimate import read_estimates
from plda.masks.folder import load_mask, mask_path
from plda.params import (
    DownloadBackbone,
    DownloadData,
    IndexData,
    InferCams,
    MakeMasks,
    PredictMasks,
    RelabelMasks,
    Report,
    Section,
    TrainBoundary,
    TrainCam,
    TrainSegmenter,
)
from plda.report.facts import code_fact, data_facts, differences, machine_facts, method_facts
from plda.report.gallery import choose, choose_worst, make_rows
from plda.report.page import render
from plda.scoring.images import score_images


def report(
    index: Path,
    images: Path,
    classes: Path,
    presets: Path,
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
    source: str,
    seed: int,
    download_data: DownloadData,
    index_data: IndexData,
    download_backbone: DownloadBackbone,
    train_cam: TrainCam,
    infer_cams: InferCams,
    train_boundary: TrainBoundary,
    make_masks: MakeMasks,
    relabel_masks: RelabelMasks,
    train_segmenter: TrainSegmenter,
    predict_masks: PredictMasks,
    report: Report,
) -> None:
    """Make the page that shows it all: what was run, scores, curves, and images with their masks.

    Args:
        index: the table of the data set.
        images: its archive.
        classes: its class names.
        presets: folder of whole params files, of which the run's differ.
        backbone_origins: where the first weights come from.
        cam_history: losses and learning rate of the CAM network by epoch.
        cam_machine: what it was trained on.
        cams: the maps of the training images.
        boundary_history: losses and learning rate of the boundary network, if there is one.
        pseudo_masks: the masks made of them.
        segmenter_history: losses and learning rate of the segmentation network by epoch.
        segmenter_machine: what it was trained on.
        predictions: its masks.
        estimates: their expected IoU by image.
        cam_metrics: the scores of seeds and pseudo-masks, in percent.
        cam_class_scores: their IoU, precision and recall by class.
        seed_curve: the seeds' scores by background score.
        metrics: the scores of the predictions, and their mean expected IoU.
        class_scores: theirs by class.
        page: written: one HTML file that needs nothing else.
        source: of the images.
        seed: of training.
        download_data: its section of the params, as are all that follow: the page tells them.
        index_data: of the data set.
        download_backbone: of the first weights.
        train_cam: of the classifier.
        infer_cams: of the maps.
        train_boundary: of the boundary network.
        make_masks: of the pseudo-masks.
        relabel_masks: of what the network learns from.
        train_segmenter: of the segmentation network.
        predict_masks: of its masks.
        report: of the page.
    """
    params = _plain(
        source=source,
        seed=seed,
        download_data=download_data,
        index_data=index_data,
        download_backbone=download_backbone,
        train_cam=train_cam,
        infer_cams=infer_cams,
        train_boundary=train_boundary,
        make_masks=make_masks,
        relabel_masks=relabel_masks,
        train_segmenter=train_segmenter,
        predict_masks=predict_masks,
        report=report,
    )
    names, entries, archive = read_classes(classes), read_index(index), Archive(images)
    train = [entry for entry in entries if entry.teaches]
    predicted = [entry for entry in entries if mask_path(predictions, entry).exists()]
    val = [entry for entry in predicted if entry.split == "val"]
    expected = read_estimates(estimates, predicted)
    of_train, _ = score_images(train, archive, partial(load_mask, pseudo_masks), len(names))
    of_val, confusion = score_images(val, archive, partial(load_mask, predictions), len(names))
    scores = of_train | of_val
    order = of_train | (of_val or {entry.key: expected[entry.key] for entry in val})
    tagged = occurrences(train, names)
    machines = {"CAM network": cam_machine, "segmentation network": segmenter_machine}
    facts = {
        "Data": data_facts(entries, names, params),
        "Method": method_facts(params, json.loads(backbone_origins.read_bytes())),
        "Where": {
            **machine_facts({name: json.loads(path.read_bytes()) for name, path in machines.items()}),
            "Code": code_fact(),
        },
    }
    html = render(
        classes=names,
        params=params,
        facts=facts,
        changes=differences(presets.glob("*.yaml"), params),
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
            choose(entries, report.gallery),
            choose_worst(entries, order, report.worst),
            scores,
            expected,
            names,
            archive,
            Cams(cams),
            pseudo_masks,
            predictions,
        ),
    )
    write_text(page, html)
    print(page)


def _plain(**sections: Section | str | int) -> dict[str, Any]:
    """Plain values instead of sections, as YAML would have them."""
    return {
        name: value.model_dump() if isinstance(value, Section) else value for name, value in sections.items()
    }


def read_class_scores(path: Path) -> pd.DataFrame:
    """A table of `plda.scoring.summary.class_table`; a class may be called "NA" or "7"."""
    return pd.read_csv(path, dtype={"class": str}, keep_default_na=False, na_values={"iou": [""]})
