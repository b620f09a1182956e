"""The page that people look at: one HTML file that needs nothing else, made of the run's results."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from plda.data.images import PALETTE, VOID
from plda.report import charts
from plda.report.gallery import HEAT, Row


def render(
    *,
    classes: Sequence[str],
    supervision: str,
    images: Mapping[str, int],
    scored: Mapping[str, int],
    metrics: Mapping[str, Any],
    class_scores: pd.DataFrame,
    curve: pd.DataFrame,
    cam_history: pd.DataFrame,
    segmenter_history: pd.DataFrame,
    rows: Sequence[Row],
) -> str:
    """The page as HTML.

    Args:
        classes: class names, background first.
        supervision: of the segmentation network, "tags" or "masks".
        images: how many images `train` and `val` have.
        scored: how many of these were scored against true masks.
        metrics: what metrics.json holds; sets of masks that were not scored are missing.
        class_scores: columns masks, class, iou, in percent; no rows where nothing was scored.
        curve: columns background_score, miou of the seeds; no rows where these were not scored.
        cam_history: columns epoch, loss, lr of the CAM network's training; those of `domain_curves` if the
            network was looked at.
        segmenter_history: the same of the segmentation network's.
        rows: of the gallery.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text("utf-8"))
    drawn = {
        "loss": charts.epoch_curves("loss", "loss", cam_history, segmenter_history),
        "rate": charts.epoch_curves("lr", "learning rate", cam_history, segmenter_history),
    }
    if "train_source" in cam_history:
        drawn["domains"] = charts.domain_curves(cam_history)
    if len(class_scores):
        drawn["bars"] = charts.class_bars(class_scores, classes)
    if len(curve):
        drawn["seeds"] = charts.seed_curve(curve, metrics["seeds"], metrics["seeds_best"])
    return template.render(
        classes=classes,
        supervision=supervision,
        images=images,
        scored=scored,
        metrics=metrics,
        ious=class_scores.pivot(index="class", columns="masks", values="iou").to_dict(),
        titles=charts.TITLES,
        steps=STEPS,
        parts=any("recall_telling" in scores for scores in metrics.values()),
        charts=drawn,
        gallery={s: [row for row in rows if row.entry.split == s] for s in ("train", "val")},
        colours=dict(zip(classes, map(_hex, PALETTE), strict=False)),
        undecided=_hex(PALETTE[VOID]),
        heat=[_hex([int(255 * c) for c in HEAT(i / 8)[:3]]) for i in range(9)],
    )


STEPS = {"pamr": "after PAMR", "random_walk": "after the random walk", "crf": "after the CRF"}


def _hex(rgb: Sequence[int]) -> str:
    return "#" + bytes(int(c) for c in rgb).hex()
