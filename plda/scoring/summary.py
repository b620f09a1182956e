"""From confusion matrices to the numbers and tables that people compare. All in percent."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from plda.scoring.confusion import Confusion, percent

PartRecall = dict[str, float]


def collect_metrics(
    confusions: Mapping[str, Confusion], parts: Mapping[str, PartRecall | None]
) -> dict[str, dict[str, float]]:
    """mIoU, precision and recall of each set of masks; sets without a true mask are left out.

    Args:
        confusions: by name of the set.
        parts: recall on telling parts and bodies, for sets where these are known.
    """
    metrics: dict[str, dict[str, float]] = {}
    for name, confusion in confusions.items():
        if not confusion.pixels:
            continue
        recall = parts.get(name) or {}
        metrics[name] = {
            **confusion.scores().mean(),
            **{f"recall_{part}": percent(share) for part, share in recall.items()},
        }
        if name == "pseudo_masks":
            metrics[name]["miou_decided"] = confusion.decided_scores().mean()["miou"]
            metrics[name]["undecided"] = percent(confusion.undecided())
    return metrics


def background_metrics(
    metrics: Mapping[str, dict[str, float]], curve: Mapping[float, Confusion], chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """`metrics` with the background scores in use, who chose them, and what the best one would have given.

    Args:
        metrics: of `seeds` and `pseudo_masks`, as far as they were scored.
        curve: of the seeds, by background score.
        chosen: the background scores in use for both sets, and `chosen_by`.
    """
    told: dict[str, Any] = {
        name: {**scores, "background_score": round(chosen[name], 4)} for name, scores in metrics.items()
    }
    if "seeds" in told:
        best = max(curve, key=lambda score: curve[score].scores().mean()["miou"])
        told["seeds_best"] = {**curve[best].scores().mean(), "background_score": best}
    return {**told, "background_score_chosen_by": chosen["chosen_by"]}


def last_inspection(history: pd.DataFrame) -> dict[str, dict[str, float]]:
    """What was seen after the last epoch, by split; of a training's curves, see `plda.scoring.domains`."""
    last = history.iloc[-1].dropna()
    seen: dict[str, dict[str, float]] = {}
    for column, value in last.items():
        split, _, name = str(column).partition("_")
        if split in ("train", "val"):
            seen.setdefault(split, {})[name] = float(value)
    return seen


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
