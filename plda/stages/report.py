"""Stage report."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd

from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.index import read_index
from plda.files import write_text
from plda.masks.cams import Cams
from plda.masks.folder import mask_path
from plda.params import Report, TrainSegmenter
from plda.report.gallery import choose, make_rows
from plda.report.page import render


def report(
    index: Path,
    images: Path,
    classes: Path,
    cam_history: Path,
    cams: Path,
    pseudo_masks: Path,
    segmenter_history: Path,
    predictions: Path,
    cam_metrics: Path,
    cam_class_scores: Path,
    seed_curve: Path,
    metrics: Path,
    class_scores: Path,
    page: Path,
    *,
    report: Report,
    train_segmenter: TrainSegmenter,
) -> None:
    """Make the page that shows it all: scores, curves, and images with their masks.

    Args:
        index: the table of the data set.
        images: its archive.
        classes: its class names.
        cam_history: losses and learning rate of the CAM network by epoch.
        cams: the maps of the training images.
        pseudo_masks: the masks made of them.
        segmenter_history: losses and learning rate of the segmentation network by epoch.
        predictions: its masks.
        cam_metrics: the scores of seeds and pseudo-masks, in percent.
        cam_class_scores: their IoU, precision and recall by class.
        seed_curve: the seeds' scores by background score.
        metrics: the scores of the predictions.
        class_scores: theirs by class.
        page: written: one HTML file that needs nothing else.
        report: its section of the params.
        train_segmenter: that of the segmentation network, to say what it learnt from.
    """
    names = read_classes(classes)
    entries = read_index(index)
    scored = [
        entry
        for entry in entries
        if entry.mask and (entry.split == "train" or mask_path(predictions, entry).exists())
    ]
    rows = make_rows(
        choose(entries, report.gallery),
        names,
        Archive(images),
        Cams(cams),
        pseudo_masks,
        predictions,
    )
    html = render(
        classes=names,
        supervision=train_segmenter.supervision,
        images=Counter(entry.split for entry in entries),
        scored=Counter(entry.split for entry in scored),
        metrics={**json.loads(cam_metrics.read_text()), **json.loads(metrics.read_text())},
        class_scores=pd.concat([read_class_scores(cam_class_scores), read_class_scores(class_scores)]),
        curve=pd.read_csv(seed_curve),
        cam_history=pd.read_csv(cam_history),
        segmenter_history=pd.read_csv(segmenter_history),
        rows=rows,
    )
    write_text(page, html)
    print(page)


def read_class_scores(path: Path) -> pd.DataFrame:
    """A table of `plda.scoring.summary.class_table`; a class may be called "NA" or "7"."""
    return pd.read_csv(path, dtype={"class": str}, keep_default_na=False, na_values={"iou": [""]})
