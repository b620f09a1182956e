"""Stage infer_cams."""

import sys
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from plda.compute.device import find_device, inference_dtype, together_on
from plda.compute.parallel import parallel_map
from plda.data.data_set import DataSet
from plda.data.index import Entry, by_size
from plda.masks.cams import map_size, normalise_maps, write_cams
from plda.models.baselines import CAM
from plda.models.inference import Inference, multi_scale
from plda.models.saved import load_network
from plda.params import Compute, InferCams, Precision


def infer_cams(
    data_set: Path, cam_network: Path, cams: Path, *, infer_cams: InferCams, compute: Compute
) -> None:
    """Compute the class activation maps (CAMs) of every training image, at several scales and mirrored.

    Args:
        data_set: folder of the data set, see `plda.data.data_set`.
        cam_network: trained CAM network.
        cams: output: maps of each image's tagged classes, see `plda.masks.cams`.
        infer_cams: section `infer_cams` of params.yaml.
        compute: device, precision and number of processes.
    """
    data = DataSet(data_set)
    entries = data.training
    tagged = [entry for entry in entries if entry.tags]
    make = partial(_Maps, cam_network, data, infer_cams, compute.precision)
    with parallel_map(make, compute, len(tagged)) as maps_of:
        together = maps_of(by_size(tagged, together_on(find_device(compute))))
        empty = ((e.key, torch.zeros(1, *map_size(*e.size))) for e in entries if not e.tags)
        maps = chain(chain.from_iterable(together), empty)
        write_cams(cams, tqdm(maps, total=len(entries), unit="image", disable=not sys.stderr.isatty()))


class _Maps:
    """Computes the maps of a group of images of one size."""

    def __init__(
        self, path: Path, data: DataSet, settings: InferCams, precision: Precision, device: torch.device
    ) -> None:
        """Load the network at `path` for the classes of `data`."""
        dtype = inference_dtype(precision, device)
        self._network = Inference(load_network(path, CAM, data.classes), device, dtype)
        self._data, self._settings, self._device = data, settings, device

    def load(self, entries: Sequence[Entry]) -> tuple[Sequence[Entry], Tensor]:
        """Read the images."""
        return entries, self._data.images(entries)

    def __call__(self, loaded: tuple[Sequence[Entry], Tensor]) -> list[tuple[str, Tensor]]:
        """Return each image's key and the (K, h, w) maps of its tags, in [0, 1)."""
        entries, images = loaded
        ids = [[class_id - 1 for class_id in self._data.ids(entry)] for entry in entries]
        needed = sorted(set(chain.from_iterable(ids)))
        maps = multi_scale(
            lambda x: self._network(x).maps[:, needed],
            images.to(self._device),
            map_size(*entries[0].size),
            scales=self._settings.scales,
            flip=self._settings.flip,
        ).cpu()
        return [
            (entry.key, normalise_maps(maps[i, [needed.index(class_id) for class_id in own]]))
            for i, (entry, own) in enumerate(zip(entries, ids, strict=True))
        ]
