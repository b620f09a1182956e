"""Stage evaluate_cams."""

import json
from functools import partial
from pathlib import Path

import pandas as pd
from torch import Tensor

from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.index import Entry, read_index
from plda.files import write_json, write_text
from plda.masks.cams import Cams
from plda.masks.folder import load_mask
from plda.scoring.masks import CURVE, recall_by_part, score_masks, score_seeds, seed_masks
from plda.scoring.summary import (
    background_metrics,
    class_table,
    collect_metrics,
    curve_table,
    last_inspection,
)


def evaluate_cams(
    index: Path,
    images: Path,
    classes: Path,
    cam_history: Path,
    cams: Path,
    pseudo_masks: Path,
    background_scores: Path,
    cam_metrics: Path,
    cam_class_scores: Path,
    seed_curve: Path,
) -> None:
    """Score seeds and pseudo-masks of the training images against the true masks, as far as there are any.

    Args:
        index: the table of the data set.
        images: its archive, with the true masks.
        classes: its class names.
        cam_history: curves of the training; the last row tells of source and target pixels.
        cams: the maps of the training images.
        pseudo_masks: the masks made of them.
        background_scores: the scores that background was given, and how they were chosen.
        cam_metrics: written: the scores, in percent.
        cam_class_scores: written: IoU, precision and recall by class.
        seed_curve: written: the seeds' scores by background score.
    """
    names = read_classes(classes)
    archive, maps = Archive(images), Cams(cams)
    entries = read_index(index, "train")
    chosen = json.loads(background_scores.read_text())

    def maps_of(entry: Entry) -> Tensor:
        return maps.read(entry.key)

    seeds, *curve = score_seeds(entries, archive, maps_of, names, (chosen["seeds"], *CURVE))
    masks = score_masks(entries, archive, partial(load_mask, pseudo_masks), len(names))
    confusions = {"seeds": seeds, "pseudo_masks": masks}
    parts = {"seeds": recall_by_part(entries, archive, seed_masks(maps_of, names, chosen["seeds"]))}
    metrics = background_metrics(
        collect_metrics(confusions, parts), dict(zip(CURVE, curve, strict=True)), chosen
    )
    write_json(cam_metrics, metrics | {"inspected": last_inspection(pd.read_csv(cam_history))})
    write_text(cam_class_scores, class_table(confusions, names).to_csv(index=False))
    write_text(seed_curve, curve_table(CURVE, curve).to_csv(index=False))
