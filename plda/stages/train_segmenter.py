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
        index: table of the data set, one row per image.
        images: archive of the images and true masks.
        classes: file of class names, background first.
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
        [index, images, classes, training_masks, cam_network, segmenter_backbone],
    )
    fit_segmenter(
        segmenter,
        entries,
        archive,
        mask_of,
        read_classes(classes),
        segmenter_backbone,
        cam_network if train_segmenter.tagger == "cams" else None,
        settings=train_segmenter,
        seed=seed,
        compute=compute,
        checkpoint=Checkpoint(checkpoints / f"train_segmenter-{key}"),
        note=note,
    )


def _need_masks(entries: Sequence[Entry], index: Path) -> None:
    """Check that every training image with tags has a true mask.

    Raises:
        InputError: an image has none; the message names the first such image of `index`.
    """
    without = [entry.image for entry in entries if entry.tags and not entry.mask]
    if without:
        raise InputError(
            f"{index}: field mask: {without[0]} has no true mask ({len(without)} of {len(entries)} training "
            "images have none); add masks, or set train_segmenter.supervision to tags"
        )


def _true_mask(archive: Archive, entry: Entry) -> np.ndarray:
    """Return (H, W) uint8 class ids, VOID where unknown; only background if there is no mask and no tag."""
    if not entry.mask:
        return np.zeros((entry.height, entry.width), np.uint8)
    return load_true_mask(archive, entry.mask)
