"""Stage train_segmenter."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from plda.data.data_set import DataSet
from plda.data.index import Entry
from plda.errors import InputError
from plda.files import write_json
from plda.masks.folder import Masks
from plda.params import Compute, TrainSegmenter
from plda.training.checkpoints import Checkpoint, fingerprint
from plda.training.compute import describe
from plda.training.loop import write_history
from plda.training.segmenter import fit_segmenter


def train_segmenter(
    data_set: Path,
    training_masks: Path,
    cam_network: Path,
    segmenter_backbone: Path,
    checkpoints: Path,
    segmenter: Path,
    segmenter_history: Path,
    segmenter_machine: Path,
    *,
    train_segmenter: TrainSegmenter,
    seed: int,
    compute: Compute,
) -> None:
    """Train a segmentation network on masks made from tags, or on true masks as an upper bound.

    Args:
        data_set: folder of the data set, see `plda.data.data_set`.
        training_masks: folder of masks made from tags alone, VOID where undecided.
        cam_network: classifier trained on tags, which may become part of the network.
        segmenter_backbone: first weights of the backbone.
        checkpoints: folder of the checkpoints from which an interrupted training resumes.
        segmenter: output: trained network.
        segmenter_history: output: losses and learning rate by epoch.
        segmenter_machine: output: hardware and software of the training.
        train_segmenter: section `train_segmenter` of params.yaml.
        seed: random seed for weights, image order, augmentation and dropout.
        compute: device, precision and number of processes.

    Raises:
        InputError: `supervision` is masks, and a training image has no true mask.
    """
    data = DataSet(data_set)
    mask_of: Callable[[Entry], np.ndarray] = Masks(training_masks)
    if train_segmenter.supervision == "masks":
        _need_masks(data)
        mask_of = partial(_true_mask, data)

    def note(history: pd.DataFrame) -> None:
        write_history(segmenter_history, history)
        write_json(segmenter_machine, describe(compute))

    key = fingerprint(
        [train_segmenter.model_dump(), seed], [data_set, training_masks, cam_network, segmenter_backbone]
    )
    fit_segmenter(
        segmenter,
        data,
        mask_of,
        segmenter_backbone,
        cam_network if train_segmenter.tagger == "cams" else None,
        settings=train_segmenter,
        seed=seed,
        compute=compute,
        checkpoint=Checkpoint(checkpoints / f"train_segmenter-{key}"),
        note=note,
    )


def _need_masks(data: DataSet) -> None:
    """Check that every training image with tags has a true mask.

    Raises:
        InputError: an image has none; the message names the first such image of the table.
    """
    entries = data.training
    without = [entry.image for entry in entries if entry.tags and not entry.mask]
    if without:
        raise InputError(
            f"{data.folder}/index.csv: field mask: {without[0]} has no true mask ({len(without)} of "
            f"{len(entries)} training images have none); add masks, or set "
            "train_segmenter.supervision to tags"
        )


def _true_mask(data: DataSet, entry: Entry) -> np.ndarray:
    """Return (H, W) uint8 class ids, VOID where unknown; only background if there is no mask and no tag."""
    if not entry.mask:
        return np.zeros(entry.size, np.uint8)
    return data.true_mask(entry)
