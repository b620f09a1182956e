"""Stage evaluate."""

import json
from functools import partial
from pathlib import Path

import numpy as np

from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.index import Entry, read_index
from plda.files import write_json, write_text
from plda.masks.cams import Cams
from plda.masks.folder import load_mask, mask_path
from plda.masks.seeds import pseudo_mask
from plda.scoring.confusion import Confusion
from plda.scoring.masks import CURVE, recall_by_part, score_masks, score_seeds
from plda.scoring.summary import class_table, collect_metrics, curve_table, summarise


def evaluate(
    index: Path,
    images: Path,
    classes: Path,
    cams: Path,
    pseudo_masks: Path,
    background_scores: Path,
    predictions: Path,
    metrics: Path,
    class_scores: Path,
    seed_curve: Path,
    summary: Path,
) -> None:
    """Score seeds, pseudo-masks and predictions against the true masks, as far as there are any.

    Args:
        index: the table of the data set.
        images: its archive, with the true masks.
        classes: its class names.
        cams: the maps of the training images.
        pseudo_masks: the masks made of them.
        background_scores: the scores that background was given, and how they were chosen.
        predictions: the segmentation network's masks.
        metrics: written: the scores, in percent.
        class_scores: written: IoU, precision and recall by class.
        seed_curve: written: the seeds' scores by background score.
        summary: written: a table for people.
    """
    names = read_classes(classes)
    archive, maps = Archive(images), Cams(cams)
    train = read_index(index, "train")
    predicted = [e for e in read_index(index, "val") if mask_path(predictions, e).exists()]
    chosen = json.loads(background_scores.read_text())

    def seed_mask(entry: Entry) -> np.ndarray:
        ids = [names.index(tag) for tag in entry.tags]
        size = (entry.height, entry.width)
        return pseudo_mask(maps.read(entry.key), ids, chosen["seeds"], 0.0, size).numpy()

    seeds, *curve = score_seeds(train, archive, maps, names, (chosen["seeds"], *CURVE))
    confusions: dict[str, Confusion] = {
        "seeds": seeds,
        "pseudo_masks": score_masks(train, archive, partial(load_mask, pseudo_masks), len(names)),
        "predictions": score_masks(predicted, archive, partial(load_mask, predictions), len(names)),
    }
    parts = {
        "seeds": recall_by_part(train, archive, seed_mask),
        "predictions": recall_by_part(predicted, archive, partial(load_mask, predictions)),
    }
    scores = collect_metrics(confusions, dict(zip(CURVE, curve, strict=True)), parts, chosen)
    write_json(metrics, scores)
    write_text(class_scores, class_table(confusions, names).to_csv(index=False))
    write_text(seed_curve, curve_table(CURVE, curve).to_csv(index=False))
    text = summarise(scores)
    write_text(summary, text)
    print(text)
