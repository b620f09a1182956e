"""Stage train_cam."""

from pathlib import Path
from typing import cast

import pandas as pd

from plda.adaptation.network import PldaNetwork, Switches, baseline_weights, plda_losses
from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.datasets import TaggedCrops
from plda.data.index import read_index
from plda.models.cam import CamNetwork, cam_losses
from plda.models.saved import Architecture, load, save_network
from plda.params import Compute, TrainCam
from plda.training.checkpoints import Checkpoint, fingerprint
from plda.training.loop import LossFunction, Weights, train, write_history


def train_cam(
    index: Path,
    images: Path,
    classes: Path,
    cam_backbone: Path,
    checkpoints: Path,
    cam_network: Path,
    cam_history: Path,
    *,
    train_cam: TrainCam,
    seed: int,
    compute: Compute,
) -> None:
    """Train a classifier on image tags, whose class activation maps say where.

    Args:
        index: the table of the data set.
        images: its archive.
        classes: its class names.
        cam_backbone: the weights to start from.
        checkpoints: folder for what a killed training resumes from.
        cam_network: written: the trained network.
        cam_history: written: losses and learning rate by epoch.
        train_cam: its section of the params.
        seed: of weights, order, augmentation and dropout.
        compute: where it runs.
    """
    names = read_classes(classes)
    backbone = load(cam_backbone)
    architecture = Architecture(
        kind="cam",
        backbone=backbone["name"],
        output_stride=train_cam.output_stride,
        batch_norm=train_cam.batch_norm,
        head="",
        classes=names,
    )
    network = architecture.start(backbone["weights"], seed)
    data = TaggedCrops(read_index(index, "train"), Archive(images), names, train_cam, seed)

    losses: LossFunction = cam_losses
    switches = train_cam.adaptation.model_dump()
    if switches.pop("enabled"):
        network, losses = PldaNetwork(cast(CamNetwork, network), Switches(**switches)), plda_losses

    def write(weights: Weights, history: pd.DataFrame) -> None:
        save_network(cam_network, architecture, baseline_weights(weights))
        write_history(cam_history, history)

    key = fingerprint([train_cam.model_dump(), seed], [index, images, classes, cam_backbone])
    train(
        network,
        data,
        losses,
        settings=train_cam,
        seed=seed,
        compute=compute,
        checkpoint=Checkpoint(checkpoints / f"train_cam-{key}"),
        write=write,
    )
