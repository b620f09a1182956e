"""The report page: one HTML file that needs no other file, made from the results of a run."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

from plda.data.images import PALETTE, VOID
from plda.data.tags import Occurrence
from plda.refinement.steps import AFTER
from plda.report import charts
from plda.report.facts import gist
from plda.report.gallery import HEAT, SPLITS, Row
from plda.scoring.confusion import Confusion
from plda.yaml_file import yaml_text

MOST_CLASSES = 25  # of a confusion matrix that is still readable
MISTAKES = 6  # confusions that are listed, at most


class Mistake(NamedTuple):
    """Share of the pixels of class `truth` that are labelled `given`, in percent."""

    truth: str
    given: str
    share: float


def render(
    *,
    classes: Sequence[str],
    params: Mapping[str, Any],
    facts: Mapping[str, Mapping[str, str]],
    images: Mapping[str, int],
    tagged: Sequence[Occurrence],
    doubts: Sequence[str],
    scored: Mapping[str, int],
    metrics: Mapping[str, Any],
    class_scores: pd.DataFrame,
    confusion: Confusion,
    curve: pd.DataFrame,
    cam_history: pd.DataFrame,
    boundary_history: pd.DataFrame,
    segmenter_history: pd.DataFrame,
    rows: Sequence[Row],
) -> str:
    """Return the page as HTML.

    Args:
        classes: class names, background first.
        params: sections of the run's params as plain values, by name.
        facts: sentences about the run by term, in groups.
        images: number of images in `train` and `val`.
        tagged: how often each class is tagged in the training images.
        doubts: sentences about classes that are hard to learn from the tags.
        scored: number of images in `train` and `val` that were scored against true masks.
        metrics: content of the metrics.json files; sets of masks that were not scored are missing.
        class_scores: columns masks, class, iou, in percent; no rows if nothing was scored.
        confusion: confusion matrix of the predictions.
        curve: columns background_score, miou of the seeds; no rows if the seeds were not scored.
        cam_history: columns epoch, step, loss, lr of the CAM network; also those of `domain_curves` if the
            network was inspected.
        boundary_history: columns epoch, step, loss, lr of the boundary network; no rows if there is none.
        segmenter_history: columns epoch, step, loss, lr of the segmentation network.
        rows: rows of the gallery.
    """
    supervision = params["train_segmenter"]["supervision"]
    steps = _steps(metrics, params["make_masks"]["refinement"], supervision)
    drawn = _training_charts(cam_history, boundary_history, segmenter_history)
    if steps:
        trivial = background_alone(confusion) if confusion.pixels else None
        drawn["funnel"] = charts.funnel(steps, trivial)
    if len(class_scores):
        drawn["bars"] = charts.class_bars(class_scores, classes)
    if len(curve):
        drawn["seeds"] = charts.seed_curve(curve, metrics["seeds"], metrics["seeds_best"])
    ious = class_scores.pivot(index="class", columns="masks", values="iou").to_dict()
    html: str = template("page.html.j2").render(
        classes=classes,
        supervision=supervision,
        facts=facts,
        gist=gist(params),
        settings=yaml_text(params),
        images=images,
        tagged=tagged,
        doubts=doubts,
        scored=scored,
        metrics=metrics,
        ious=ious,
        ranked=_ranked(ious.get("predictions", {})),
        trivial=background_alone(confusion) if confusion.pixels else None,
        matrix=_matrix(confusion) if confusion.pixels and len(classes) <= MOST_CLASSES else None,
        missed=_missed(confusion),
        mistakes=mistakes(confusion, classes),
        titles=charts.TITLES,
        steps=AFTER,
        parts=any("recall_telling" in scores for scores in metrics.values() if isinstance(scores, dict)),
        charts=drawn,
        gallery={split: [row for row in rows if row.entry.split == split] for split in reversed(SPLITS)},
        colours=dict(zip(classes, map(_hex, PALETTE), strict=False)),
        undecided=_hex(PALETTE[VOID]),
        void=VOID,
        heat=[_hex([int(255 * c) for c in HEAT(i / 8)[:3]]) for i in range(9)],
    )
    return html


def template(name: str, package: str = "plda.report") -> Template:
    """Return a template from the folder of a package; all values that it shows are escaped."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ""), PackageLoader("plda.report", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def background_alone(confusion: Confusion) -> float:
    """Return the mIoU in percent of all-background masks, for the same true masks."""
    true = confusion.counts.sum(axis=1)
    return float(100 * true[0] / true.sum() / np.count_nonzero(true))


def mistakes(confusion: Confusion, classes: Sequence[str]) -> list[Mistake]:
    """Return the most frequent confusions, as shares of the true class's pixels; background is ignored."""
    shares = _matrix(confusion)[:, : len(classes)]
    np.fill_diagonal(shares, 0)
    shares[0] = shares[:, 0] = 0
    order = np.argsort(-shares, axis=None, kind="stable")[:MISTAKES]
    pairs = (divmod(int(place), len(classes)) for place in order)
    found = [Mistake(classes[truth], classes[given], float(shares[truth, given])) for truth, given in pairs]
    return [mistake for mistake in found if mistake.share >= 1]


def _missed(confusion: Confusion) -> float | None:
    """Return the percentage of object pixels that are labelled background."""
    objects = confusion.counts[1:]
    return float(100 * objects[:, 0].sum() / objects.sum()) if objects.any() else None


def _matrix(confusion: Confusion) -> np.ndarray:
    """Return (C, C + 1): percent of each true class's pixels by their label; undecided is last."""
    counts = confusion.counts
    shares: np.ndarray = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def _steps(
    metrics: Mapping[str, Any], refinement: Sequence[str], supervision: str
) -> list[tuple[str, float, bool]]:
    """Return title, mIoU, and whether it is the network's, for each scored set of masks, in order."""
    network = "network" if supervision == "tags" else "network, fully\nsupervised"
    sets = {
        "seeds": ("CAM seeds", False),
        **{step: (AFTER[step], False) for step in refinement},
        "pseudo_masks": ("pseudo-masks", False),
        "relabelled_masks": ("relabelled masks", False),
        "predictions": (f"{network}\n(unseen images)", True),
    }
    return [
        (title, metrics[name]["miou"], is_network)
        for name, (title, is_network) in sets.items()
        if name in metrics
    ]


def _ranked(ious: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the classes that occur and their IoU, best first, without background."""
    known = [(name, iou) for name, iou in list(ious.items()) if iou == iou and name != "background"]
    return sorted(known, key=lambda it: -it[1])


def _training_charts(cam: pd.DataFrame, boundary: pd.DataFrame, segmenter: pd.DataFrame) -> dict[str, str]:
    every = dict(zip(charts.TRAININGS, (cam, boundary, segmenter), strict=True))
    trained = {name: history for name, history in every.items() if len(history)}
    drawn = {
        "loss": charts.epoch_curves("loss", "loss", trained),
        "rate": charts.epoch_curves("lr", "learning rate", trained),
    }
    told = ("epoch", "step", "lr", "loss", "reversal")
    parts = [c for c in map(str, cam) if c not in told and not c.startswith(("train_", "val_"))]
    if len(parts) > 1:
        names = {part: part.replace("_", " ") for part in parts}
        drawn["parts"] = charts.curves("parts", "loss, logarithmic", cam, names, log=True)
    if "train_source" in cam:
        drawn["domains"] = charts.domain_curves(cam)
    if "train_gap" in cam:
        columns = {"train_gap": "training images", "val_gap": "unseen images"}
        drawn["inspected_gap"] = charts.curves("inspected-gap", "proxy A-distance", cam, columns)
    if "reversal" in cam and cam["reversal"].any():
        drawn["lambda"] = charts.curves("lambda", "λ", cam, {"reversal": "gradient reversal"})
    return drawn


def _hex(rgb: Sequence[int]) -> str:
    return "#" + bytes(int(c) for c in rgb).hex()
