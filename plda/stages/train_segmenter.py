"""Stage train_segmenter."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.index import Entry, read_training_entries
from plda.data.loading import load_true_mask
from plda.errors import InputError
from plda.files import write_json
from plda.masks.folder import load_mask
from plda.params import Compute, TrainSegmenter
from plda.training.checkpoints import Checkpoint, fingerprint
from plda.training.compute import describe
from plda.training.loop import write_history
from plda.training.segmenter import fit_segmenter


def train_segmenter(
    index: Path,
    images: Path,
    classes: Path,
    training_masks: Path,
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
    """Train a segmentation network on masks made of tags, or on true ones, to see what those would give.

    Args:
        index: the table of the data set.
        images: its archive, with the true masks.
        classes: its class names.
        training_masks: the masks that tags alone have led to, VOID where undecided.
        segmenter_backbone: the weights to start from.
        checkpoints: folder for what a killed training resumes from.
        segmenter: written: the trained network.
        segmenter_history: written: losses and learning rate by epoch.
        segmenter_machine: written: what the training ran on.
        train_segmenter: its section of the params.
        seed: of weights, order, augmentation and dropout.
        compute: where it runs.

    Raises:
        InputError: it is to learn from true masks, and an image has none.
    """
    archive, entries = Archive(images), read_training_entries(index)
    mask_of = partial(load_mask, training_masks)
    if train_segmenter.supervision == "masks":
        _need_masks(entries, index)
        mask_of = partial(_true_mask, archive)

    def note(history: pd.DataFrame) -> None:
        write_history(segmenter_history, history)
        write_json(segmenter_machine, describe(compute))

    key = fingerprint(
        [train_segmenter.model_dump(), seed],
        [index, images, classes, training_masks, segmenter_backbone],
    )
    fit_segmenter(
        segmenter,
        entries,
        archive,
        mask_of,
        read_classes(classes),
        segmenter_backbone,
        settings=train_segmenter,
        seed=seed,
        compute=compute,
        checkpoint=Checkpoint(checkpoints / f"train_segmenter-{key}"),
        note=note,
    )


def _need_masks(entries: Sequence[Entry], index: Path) -> None:
    """Refuse a training set of which an image with tags has no true mask.

    Raises:
        InputError: names the first such image of `index`.
    """
    without = [entry.image for entry in entries if entry.tags and not entry.mask]
    if without:
        raise InputError(
            f"{index}: field mask: {without[0]} has no true mask ({len(without)} of {len(entries)} training "
            "images have none); train_segmenter.supervision: masks needs them"
        )


def _true_mask(archive: Archive, entry: Entry) -> np.ndarray:
    """(H, W) uint8 class ids, VOID where unknown; without a mask and tags, background."""
    if not entry.mask:
        return np.zeros((entry.height, entry.width), np.uint8)
    return load_true_mask(archive, entry.mask)
