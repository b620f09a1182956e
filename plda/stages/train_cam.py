"""Stage train_cam."""

from pathlib import Path

import pandas as pd
from torch import nn

from plda.adaptation.learner import PldaLearner
from plda.data.data_set import DataSet
from plda.data.datasets import TaggedCrops
from plda.files import write_json
from plda.models.baselines import CAM, TagLearner
from plda.models.saved import Architecture, load, save_network
from plda.params import Compute, TrainCam
from plda.training.checkpoints import Checkpoint, fingerprint
from plda.training.compute import describe
from plda.training.inspection import Inspection
from plda.training.loop import Weights, train, write_history


def train_cam(
    data_set: Path,
    cam_backbone: Path,
    checkpoints: Path,
    cam_network: Path,
    cam_history: Path,
    cam_machine: Path,
    *,
    train_cam: TrainCam,
    seed: int,
    compute: Compute,
) -> None:
    """Train a classifier on image tags; its class activation maps (CAMs) locate the classes.

    Args:
        data_set: folder of the data set, see `plda.data.data_set`.
        cam_backbone: first weights of the backbone.
        checkpoints: folder of the checkpoints from which an interrupted training resumes.
        cam_network: output: trained network.
        cam_history: output: losses, learning rate, and shares of source and target pixels by epoch.
        cam_machine: output: hardware and software of the training.
        train_cam: section `train_cam` of params.yaml.
        seed: random seed for weights, image order, augmentation and dropout.
        compute: device, precision and number of processes.
    """
    data = DataSet(data_set)
    backbone = load(cam_backbone)
    architecture = Architecture(
        kind=CAM.name,
        backbone=backbone["name"],
        output_stride=train_cam.output_stride,
        batch_norm=train_cam.batch_norm,
        head=train_cam.baseline,
        classes=data.classes,
    )
    network = CAM.start(architecture, backbone["weights"], seed, train_cam.freeze)
    inspection = Inspection(
        data,
        count=train_cam.inspected,
        side=round(train_cam.crop * sum(train_cam.scale) / 2),
        threshold=train_cam.adaptation.threshold,
    )
    if train_cam.adaptation.enabled:
        learner: nn.Module = PldaLearner(network, len(data.classes) - 1, train_cam.adaptation)
    else:
        learner = TagLearner(network)

    def write(weights: Weights, history: pd.DataFrame) -> None:
        save_network(cam_network, architecture, weights, {"first_weights": backbone["origin"]})
        write_history(cam_history, history)
        write_json(cam_machine, describe(compute))

    key = fingerprint([train_cam.model_dump(), seed], [data_set, cam_backbone])
    train(
        learner,
        TaggedCrops(data, train_cam, seed),
        settings=train_cam,
        seed=seed,
        compute=compute,
        checkpoint=Checkpoint(checkpoints / f"train_cam-{key}"),
        write=write,
        inspect=inspection,
    )
