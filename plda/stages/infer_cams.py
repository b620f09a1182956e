"""Stage infer_cams."""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from plda.data.archive import Archive
from plda.data.classes import class_ids, read_classes
from plda.data.index import read_index
from plda.data.loading import load_image
from plda.masks.cams import map_size, multi_scale, normalise_maps, write_cams
from plda.models.saved import load_network
from plda.params import Compute, InferCams
from plda.training.compute import find_device


def infer_cams(
    index: Path,
    images: Path,
    classes: Path,
    cam_network: Path,
    cams: Path,
    *,
    infer_cams: InferCams,
    compute: Compute,
) -> None:
    """Make the class activation maps of every training image, at several scales and mirrored.

    Args:
        index: the table of the data set.
        images: its archive.
        classes: its class names.
        cam_network: the trained classifier.
        cams: written: the maps of each image's tagged classes.
        infer_cams: its section of the params.
        compute: where it runs.
    """
    names = read_classes(classes)
    device = find_device(compute)
    network = load_network(cam_network, "cam", names).to(device)
    network = network.to(memory_format=torch.channels_last)
    archive = Archive(images)

    def maps() -> Iterator[tuple[str, Tensor]]:
        entries = read_index(index, "train")
        for entry in tqdm(entries, unit="image", disable=not sys.stderr.isatty()):
            ids = [class_id - 1 for class_id in class_ids(entry.tags, names)]
            averaged = multi_scale(
                lambda x, ids=ids: network(x).maps[:, ids],  # type: ignore[misc]
                load_image(archive, entry).to(device),
                map_size(entry.height, entry.width),
                scales=infer_cams.scales,
                flip=infer_cams.flip,
            )
            yield entry.key, normalise_maps(averaged)

    write_cams(cams, maps())
