"""Stage infer_cams."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from plda.data.archive import Archive
from plda.data.classes import class_ids, read_classes
from plda.data.index import Entry, read_training_entries
from plda.data.loading import load_image
from plda.masks.cams import map_size, multi_scale, normalise_maps, write_cams
from plda.models.baselines import CAM
from plda.models.saved import load_network
from plda.params import Compute, InferCams
from plda.training.spread import spread


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
        cams: written: the maps of each image's tagged classes, see `plda.masks.cams`.
        infer_cams: its section of the params.
        compute: where it runs.
    """
    names, entries = read_classes(classes), read_training_entries(index)
    with spread(partial(_Maps, cam_network, names, Archive(images), infer_cams), compute) as maps_of:
        done = tqdm(maps_of(entries), total=len(entries), unit="image", disable=not sys.stderr.isatty())
        write_cams(cams, done)


class _Maps:
    """Makes the maps of one image after another."""

    def __init__(
        self, path: Path, names: Sequence[str], archive: Archive, settings: InferCams, device: torch.device
    ) -> None:
        """Load the network at `path` for the classes `names`."""
        network = load_network(path, CAM, names).to(device)
        self._network = network.to(memory_format=torch.channels_last)
        self._names, self._archive, self._settings, self._device = names, archive, settings, device

    def __call__(self, entry: Entry) -> tuple[str, Tensor]:
        """The image's key and its (K, h, w) maps in [0, 1); without tags one map, of zeros."""
        size = map_size(entry.height, entry.width)
        if not entry.tags:
            return entry.key, torch.zeros(1, *size)
        ids = [class_id - 1 for class_id in class_ids(entry.tags, self._names)]
        averaged = multi_scale(
            lambda x: self._network(x).maps[:, ids],
            load_image(self._archive, entry).to(self._device),
            size,
            scales=self._settings.scales,
            flip=self._settings.flip,
        )
        return entry.key, normalise_maps(averaged).cpu()
