"""Stage evaluate."""

import json
from functools import partial
from pathlib import Path

from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.index import read_index, read_training_entries
from plda.files import write_json, write_text
from plda.masks.estimate import read_estimates
from plda.masks.folder import load_mask, mask_path
from plda.params import RelabelMasks
from plda.scoring.masks import score_set
from plda.scoring.summary import class_table, collect_metrics, estimate_metrics, summarise


def evaluate(
    index: Path,
    images: Path,
    classes: Path,
    cam_metrics: Path,
    training_masks: Path,
    predictions: Path,
    estimates: Path,
    metrics: Path,
    class_scores: Path,
    summary: Path,
    *,
    relabel_masks: RelabelMasks,
) -> None:
    """Score the predicted masks against the true masks, where these exist, and summarise all scores.

    Args:
        index: table of the data set, one row per image.
        images: archive of the images and true masks.
        classes: file of class names, background first.
        cam_metrics: scores of seeds and pseudo-masks.
        training_masks: masks that the segmentation network was trained on.
        predictions: folder of predicted masks.
        estimates: expected IoU of each predicted mask.
        metrics: output: scores of the predictions, in percent, and their mean expected IoU.
        class_scores: output: IoU, precision and recall of the predictions by class.
        summary: output: Markdown table of seeds, pseudo-masks, relabelled masks and predictions.
        relabel_masks: section `relabel_masks` of params.yaml; if disabled, no relabelled masks are scored.
    """
    names = read_classes(classes)
    archive = Archive(images)
    entries = [e for e in read_index(index, "val") if mask_path(predictions, e).exists()]
    scored = score_set(entries, archive, partial(load_mask, predictions), len(names))
    expected = read_estimates(estimates, entries)
    sets = {"predictions": scored}
    if relabel_masks.enabled:
        mask_of = partial(load_mask, training_masks)
        relabelled = score_set(read_training_entries(index), archive, mask_of, len(names))
        sets = {"relabelled_masks": relabelled, **sets}
    scores = collect_metrics(sets) | estimate_metrics(expected, scored.images)
    write_json(metrics, scores)
    table = class_table({"predictions": scored.everywhere}, names)
    write_text(class_scores, table.to_csv(index=False))
    write_text(summary, summarise({**json.loads(cam_metrics.read_text(encoding="utf-8")), **scores}))
