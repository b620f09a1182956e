"""From confusion matrices to the numbers and tables that people compare. All in percent."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from plda.scoring.confusion import Confusion, percent

PartRecall = dict[str, float]


def collect_metrics(
    confusions: Mapping[str, Confusion],
    curve: Mapping[float, Confusion],
    parts: Mapping[str, PartRecall | None],
    chosen: Mapping[str, Any],
) -> dict[str, Any]:
    """What metrics.json holds; sets without a true mask are left out.

    Args:
        confusions: of `seeds`, `pseudo_masks`, `predictions`.
        curve: of the seeds, by background score.
        parts: recall on telling parts and bodies, for sets where these are known.
        chosen: the background scores in use for `seeds` and `pseudo_masks`, and `chosen_by`.
    """
    metrics: dict[str, Any] = {}
    for name, confusion in confusions.items():
        if not confusion.pixels:
            continue
        metrics[name] = confusion.scores().mean()
        if name in chosen:
            metrics[name]["background_score"] = round(chosen[name], 4)
        recall = parts.get(name)
        if recall is not None:
            metrics[name] |= {f"recall_{part}": percent(r) for part, r in recall.items()}
    if "pseudo_masks" in metrics:
        confusion = confusions["pseudo_masks"]
        metrics["pseudo_masks"]["miou_decided"] = confusion.decided_scores().mean()["miou"]
        metrics["pseudo_masks"]["undecided"] = percent(confusion.undecided())
    if "seeds" in metrics:
        best = max(curve, key=lambda score: curve[score].scores().mean()["miou"])
        metrics["seeds_best"] = {**curve[best].scores().mean(), "background_score": best}
    return {**metrics, "background_score_chosen_by": chosen["chosen_by"]}


def class_table(confusions: Mapping[str, Confusion], classes: Sequence[str]) -> pd.DataFrame:
    """Columns masks, class, iou, precision, recall."""
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


def curve_table(background_scores: Sequence[float], curve: Sequence[Confusion]) -> pd.DataFrame:
    """Columns background_score, miou, precision, recall."""
    rows = [
        {"background_score": score, **confusion.scores().mean()}
        for score, confusion in zip(background_scores, curve, strict=True)
        if confusion.pixels
    ]
    return pd.DataFrame(rows, columns=["background_score", "miou", "precision", "recall"])


def summarise(metrics: Mapping[str, Any]) -> str:
    """The metrics as a table in Markdown."""
    lines = ["| masks | split | mIoU | precision | recall |", "|---|---|---:|---:|---:|"]
    lines += [
        f"| {title} | {split} | {values['miou']:.1f} | {values['precision']:.1f} | {values['recall']:.1f} |"
        for name, title, split in _ROWS
        if (values := metrics.get(name))
    ]
    if len(lines) == 2:
        return "No true masks in the data set: nothing to score.\n"
    notes = [f"Background score: {metrics['background_score_chosen_by']}."]
    if "pseudo_masks" in metrics:
        notes.append(
            f"{metrics['pseudo_masks']['undecided']:.1f} % of the pseudo-masks' pixels are undecided "
            "and count as misses; on the decided pixels alone mIoU is "
            f"{metrics['pseudo_masks']['miou_decided']:.1f}."
        )
    if "seeds_best" in metrics:
        notes.append(
            "With the background score that suits the true masks best "
            f"({metrics['seeds_best']['background_score']}, which no run may use) CAM seeds reach "
            f"{metrics['seeds_best']['miou']:.1f}."
        )
    return "\n".join([*lines, "", *notes]) + "\n"


_ROWS = (
    ("seeds", "CAM seeds", "train"),
    ("pseudo_masks", "pseudo-masks", "train"),
    ("predictions", "segmentation", "val"),
)
