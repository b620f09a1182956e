"""Stage train_segmenter."""

from functools import partial
from pathlib import Path
from typing import cast

import pandas as pd

from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.datasets import MaskedCrops
from plda.data.index import read_index
from plda.masks.folder import load_mask
from plda.models.saved import Architecture, load, save_network
from plda.models.segmenters import MaskLearner, Segmenter
from plda.params import Compute, TrainSegmenter
from plda.training.checkpoints import Checkpoint, fingerprint
from plda.training.loop import Weights, train, write_history


def train_segmenter(
    index: Path,
    images: Path,
    classes: Path,
    pseudo_masks: Path,
    segmenter_backbone: Path,
    checkpoints: Path,
    segmenter: Path,
    segmenter_history: Path,
    *,
    train_segmenter: TrainSegmenter,
    seed: int,
    compute: Compute,
) -> None:
    """Train a segmentation network on pseudo-masks.

    Args:
        index: the table of the data set.
        images: its archive.
        classes: its class names.
        pseudo_masks: the masks to learn from, VOID where undecided.
        segmenter_backbone: the weights to start from.
        checkpoints: folder for what a killed training resumes from.
        segmenter: written: the trained network.
        segmenter_history: written: losses and learning rate by epoch.
        train_segmenter: its section of the params.
        seed: of weights, order, augmentation and dropout.
        compute: where it runs.
    """
    names = read_classes(classes)
    backbone = load(segmenter_backbone)
    architecture = Architecture(
        kind="segmenter",
        backbone=backbone["name"],
        output_stride=train_segmenter.output_stride,
        batch_norm=train_segmenter.batch_norm,
        head=train_segmenter.head,
        classes=names,
    )
    network = architecture.start(backbone["weights"], seed)
    entries, masks = read_index(index, "train"), partial(load_mask, pseudo_masks)
    data = MaskedCrops(entries, Archive(images), masks, train_segmenter, seed)

    def write(weights: Weights, history: pd.DataFrame) -> None:
        save_network(segmenter, architecture, weights)
        write_history(segmenter_history, history)

    key = fingerprint(
        [train_segmenter.model_dump(), seed],
        [index, images, classes, pseudo_masks, segmenter_backbone],
    )
    train(
        MaskLearner(cast(Segmenter, network)),
        data,
        settings=train_segmenter,
        seed=seed,
        compute=compute,
        checkpoint=Checkpoint(checkpoints / f"train_segmenter-{key}"),
        write=write,
    )
