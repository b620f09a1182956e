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
from plda.params import Report
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
    metrics: Path,
    class_scores: Path,
    seed_curve: Path,
    page: Path,
    *,
    report: Report,
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
        metrics: the scores, in percent.
        class_scores: IoU, precision and recall by class.
        seed_curve: the seeds' scores by background score.
        page: written: one HTML file that needs nothing else.
        report: its section of the params.
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
        images=Counter(entry.split for entry in entries),
        scored=Counter(entry.split for entry in scored),
        metrics=json.loads(metrics.read_text()),
        # a class may be called "NA" or "7"
        class_scores=pd.read_csv(
            class_scores, dtype={"class": str}, keep_default_na=False, na_values={"iou": [""]}
        ),
        curve=pd.read_csv(seed_curve),
        cam_history=pd.read_csv(cam_history),
        segmenter_history=pd.read_csv(segmenter_history),
        rows=rows,
    )
    write_text(page, html)
    print(page)
