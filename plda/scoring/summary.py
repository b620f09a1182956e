"""Metrics and tables from confusion matrices. All values are in percent."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from plda.refinement.steps import AFTER
from plda.scoring.confusion import Confusion, percent
from plda.scoring.masks import OUTLINE, Scored

MAY_BE_UNDECIDED = ("boundary_seeds", "pseudo_masks", "relabelled_masks")
FEWEST = 3  # images, the minimum for a rank correlation


def collect_metrics(sets: Mapping[str, Scored]) -> dict[str, dict[str, float]]:
    """Return mIoU, precision, recall and more of each set of masks that has true masks, by name.

    `miou_outlines` covers only pixels near outlines. The values of `Confusion.objects` separate errors of
    shape from errors of class. `recall_telling` and `recall_body` exist if the parts are known. Masks that
    may be undecided also have `undecided`, the fraction of undecided pixels, and `miou_decided`, mIoU of the
    others.
    """
    metrics: dict[str, dict[str, float]] = {}
    for name, (everywhere, outlines, parts, _) in sets.items():
        if not everywhere.pixels:
            continue
        metrics[name] = {
            **everywhere.scores().mean(),
            "miou_outlines": outlines.scores().mean()["miou"],
            **everywhere.objects(),
            **{f"recall_{part}": percent(share) for part, share in (parts or {}).items()},
        }
        if name in MAY_BE_UNDECIDED:
            metrics[name]["miou_decided"] = everywhere.decided_scores().mean()["miou"]
            metrics[name]["undecided"] = percent(everywhere.undecided())
    return metrics


def estimate_metrics(
    expected: Mapping[str, float], scores: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Return the section `estimate` of the metrics: the quality of masks without true masks.

    Args:
        expected: expected IoU by image, in percent.
        scores: true mean IoU in percent of the images with a true mask, by image.

    Returns:
        `expected_iou`: the mean over images, in percent; `rank_correlation`: Spearman's correlation over
        images of expected and true IoU, in [-1, 1], if there are at least FEWEST images and neither value is
        constant. Empty without any image.
    """
    if not expected:
        return {}
    estimate = {"expected_iou": round(float(np.mean(list(expected.values()))), 2)}
    pairs = np.array([(expected[image], score) for image, score in scores.items() if image in expected])
    if len(pairs) >= FEWEST and all(np.ptp(pairs, axis=0) > 0):
        estimate["rank_correlation"] = round(float(stats.spearmanr(pairs).statistic), 3)
    return {"estimate": estimate}


def background_metrics(
    metrics: Mapping[str, dict[str, float]],
    curves: Mapping[str, Mapping[float, Confusion]],
    background: Mapping[str, float],
    chosen_by: str,
) -> dict[str, Any]:
    """Return `metrics` with the background scores in use, how they were chosen, and the best possible scores.

    Args:
        metrics: metrics of the seeds, of the masks after each refinement, and of other masks, by name.
        curves: confusion matrices by background score, of the seeds and of the masks after each refinement.
        background: the background scores in use for these sets and for `pseudo_masks`.
        chosen_by: how the background scores were chosen.
    """
    told: dict[str, Any] = {}
    for name, scores in metrics.items():
        told[name] = dict(scores)
        if name in background:
            told[name]["background_score"] = round(background[name], 4)
        if curve := curves.get(name):
            best = max(curve, key=lambda score: curve[score].scores().mean()["miou"])
            told[f"{name}_best"] = {**curve[best].scores().mean(), "background_score": best}
    return {**told, "background_score_chosen_by": chosen_by}


def last_inspection(history: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return the values of `plda.training.inspection` after the last epoch, by split."""
    last = history.iloc[-1].dropna()
    seen: dict[str, dict[str, float]] = {}
    for column, value in last.items():
        split, _, name = str(column).partition("_")
        if split in ("train", "val"):
            seen.setdefault(split, {})[name] = float(value)
    return seen


def class_table(confusions: Mapping[str, Confusion], classes: Sequence[str]) -> pd.DataFrame:
    """Return a table with the columns masks, class, iou, precision, recall."""
    tables = []
    for name, confusion in confusions.items():
        if confusion.pixels:
            scores = confusion.scores()
            columns = {
                "iou": scores.iou,
                "precision": scores.precision,
                "recall": scores.recall,
            }
            table = pd.DataFrame({"masks": name, "class": list(classes), **columns})
            tables.append(table.assign(**{c: (100 * table[c]).round(2) for c in columns}))
    if not tables:
        return pd.DataFrame(columns=["masks", "class", "iou", "precision", "recall"])
    return pd.concat(tables)


def curve_table(curve: Mapping[float, Confusion]) -> pd.DataFrame:
    """Return a table with the columns background_score, miou, precision, recall."""
    rows = [
        {"background_score": score, **confusion.scores().mean()}
        for score, confusion in curve.items()
        if confusion.pixels
    ]
    return pd.DataFrame(rows, columns=["background_score", "miou", "precision", "recall"])


def summarise(metrics: Mapping[str, Any]) -> str:
    """Return the metrics as a Markdown table with notes."""
    lines = [
        " | ".join(["| masks", "split", *_COLUMNS.values()]) + " |",
        "|---|---|" + "---:|" * len(_COLUMNS),
    ]
    for name, title, split in _ROWS:
        if values := metrics.get(name):
            lines.append(" | ".join([f"| {title}", split, *(f"{values[c]:.1f}" for c in _COLUMNS)]) + " |")
    estimated = _estimate_notes(metrics.get("estimate", {}))
    if len(lines) == 2:
        return "\n\n".join(["No true masks in the data set: nothing to score.", *estimated]) + "\n"
    notes = [
        f"At outlines: mIoU of the pixels at most {OUTLINE} pixels from an outline.",
        "Object: any class but background, against background. Object class: share of pixels with the right "
        "class among those that are object in the true mask and in the scored mask.",
        f"Background score: {metrics['background_score_chosen_by']}.",
    ]
    if "pseudo_masks" in metrics:
        notes.append(
            f"{metrics['pseudo_masks']['undecided']:.1f} % of the pseudo-masks' pixels are undecided "
            "and count as misses; on the decided pixels alone mIoU is "
            f"{metrics['pseudo_masks']['miou_decided']:.1f}."
        )
    if "seeds_best" in metrics:
        notes.append(
            "With the background score that maximises mIoU on the true masks "
            f"({metrics['seeds_best']['background_score']}, which a run must not use) CAM seeds reach "
            f"{metrics['seeds_best']['miou']:.1f}."
        )
    return "\n".join([*lines, "", *notes, *estimated]) + "\n"


def _estimate_notes(estimate: Mapping[str, float]) -> list[str]:
    """Return the note on the section `estimate`, one line, or no note if the section is empty."""
    if not estimate:
        return []
    note = (
        f"Expected IoU of the segmentation: {estimate['expected_iou']:.1f}, the mean over the val images. "
        "It is an estimate from the network's probabilities, without true masks. It is not a score: networks "
        "tend to be overconfident."
    )
    if "rank_correlation" in estimate:
        note += (
            " Its rank correlation with the true mean IoU by image is "
            f"{estimate['rank_correlation']:.2f} (1: the same order, 0: no relation)."
        )
    return [note]


_COLUMNS = {
    "miou": "mIoU",
    "miou_outlines": "at outlines",
    "precision": "precision",
    "recall": "recall",
    "object_iou": "object IoU",
    "object_precision": "object precision",
    "object_recall": "object recall",
    "object_class": "object class",
}
_ROWS = (
    ("seeds", "CAM seeds", "train"),
    *((step, title, "train") for step, title in AFTER.items()),
    ("pseudo_masks", "pseudo-masks", "train"),
    ("relabelled_masks", "relabelled masks", "train"),
    ("predictions", "segmentation", "val"),
)
