"""Stage evaluate."""

import json
from pathlib import Path

from plda.data.data_set import DataSet
from plda.files import write_json, write_text
from plda.masks.estimate import read_estimates
from plda.masks.folder import Masks, mask_path
from plda.params import RelabelMasks
from plda.scoring.masks import score_set
from plda.scoring.summary import class_table, collect_metrics, estimate_metrics, summarise


def evaluate(
    data_set: Path,
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
        data_set: folder of the data set, see `plda.data.data_set`.
        cam_metrics: scores of seeds and pseudo-masks.
        training_masks: masks that the segmentation network was trained on.
        predictions: folder of predicted masks.
        estimates: expected IoU of each predicted mask.
        metrics: output: scores of the predictions, in percent, and their mean expected IoU.
        class_scores: output: IoU, precision and recall of the predictions by class.
        summary: output: Markdown table of seeds, pseudo-masks, relabelled masks and predictions.
        relabel_masks: section `relabel_masks` of params.yaml; if disabled, no relabelled masks are scored.
    """
    data = DataSet(data_set)
    entries = [entry for entry in data.split("val") if mask_path(predictions, entry).exists()]
    scored = score_set(data, entries, Masks(predictions))
    expected = read_estimates(estimates, entries)
    sets = {"predictions": scored}
    if relabel_masks.enabled:
        sets = {"relabelled_masks": score_set(data, data.training, Masks(training_masks)), **sets}
    scores = collect_metrics(sets) | estimate_metrics(expected, scored.images)
    write_json(metrics, scores)
    table = class_table({"predictions": scored.everywhere}, data.classes)
    write_text(class_scores, table.to_csv(index=False))
    write_text(summary, summarise({**json.loads(cam_metrics.read_text(encoding="utf-8")), **scores}))
