"""Stage evaluate_cams."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from plda.data.archive import Archive
from plda.data.data_set import DataSet
from plda.data.images import enlarge_mask, read_mask
from plda.data.index import Entry
from plda.files import write_json, write_text
from plda.masks.cams import Cams
from plda.masks.folder import Masks, mask_name
from plda.scoring.masks import CURVE, score_seeds, score_set, seed_masks
from plda.scoring.summary import (
    background_metrics,
    class_table,
    collect_metrics,
    curve_table,
    last_inspection,
)


def evaluate_cams(
    data_set: Path,
    cam_history: Path,
    cams: Path,
    boundary_seeds: Path,
    refined_cams: Path,
    pseudo_masks: Path,
    background_scores: Path,
    cam_metrics: Path,
    cam_class_scores: Path,
    seed_curve: Path,
) -> None:
    """Score the masks of the training images, from seeds to pseudo-masks, where true masks exist.

    Args:
        data_set: folder of the data set, see `plda.data.data_set`.
        cam_history: training history of the CAM network; the last row has shares of source and target pixels.
        cams: class activation maps (CAMs) of the training images.
        boundary_seeds: masks that the boundary network was trained on.
        refined_cams: maps after each refinement step.
        pseudo_masks: folder of pseudo-masks.
        background_scores: background score of each set of masks, and how the scores were chosen.
        cam_metrics: output: scores of every set of masks, in percent.
        cam_class_scores: output: IoU, precision and recall by class.
        seed_curve: output: scores of the seeds for a range of background scores.
    """
    data = DataSet(data_set)
    raw, after, confident = Cams(cams), Cams(refined_cams), Archive(boundary_seeds)
    chosen = json.loads(background_scores.read_text(encoding="utf-8"))
    background: dict[str, float] = chosen["scores"]

    def maps_of(entry: Entry, step: str) -> Tensor:
        return raw.read(entry.key) if step == "seeds" else after.read(f"{step}/{entry.key}")

    def confident_mask(entry: Entry) -> np.ndarray:
        return enlarge_mask(read_mask(confident.read(mask_name(entry))), entry.size)

    score = partial(score_set, data, data.training)
    sets, curves = {}, {}
    for step, value in background.items():
        step_maps = partial(maps_of, step=step)
        sets[step] = score(seed_masks(data, step_maps, value))
        curves[step] = dict(zip(CURVE, score_seeds(data, data.training, step_maps, CURVE), strict=True))
    if confident.names():
        sets["boundary_seeds"] = score(confident_mask)
    sets["pseudo_masks"] = score(Masks(pseudo_masks))
    *_, background["pseudo_masks"] = background.values()
    metrics = background_metrics(collect_metrics(sets), curves, background, chosen["chosen_by"])
    write_json(cam_metrics, metrics | {"inspected": last_inspection(pd.read_csv(cam_history))})
    confusions = {name: scored.everywhere for name, scored in sets.items()}
    write_text(cam_class_scores, class_table(confusions, data.classes).to_csv(index=False))
    write_text(seed_curve, curve_table(curves["seeds"]).to_csv(index=False))
