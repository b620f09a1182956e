"""The network calls as many pixels object as its masks do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import encoded, photo
from torch import Tensor

from plda.data.archive import Archive, pack
from plda.data.images import VOID
from plda.data.index import Entry
from plda.models.backbones import Backbone
from plda.models.segmenters import Segmenter
from plda.training.object_share import match_object_share

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> tuple[list[Entry], Archive, dict[str, np.ndarray]]:
    """Three images of noise, and masks of a third object, a third background, a third undecided."""
    entries = [Entry(f"images/{i}.png", "train", ("cat",), "", "", 48, 36) for i in range(3)]
    pack(
        tmp_path / "images.zip", ((e.image, encoded(photo(48, 36, i), "PNG")) for i, e in enumerate(entries))
    )
    masks = {e.key: np.repeat(np.uint8([0, 1, VOID]), 12)[:, None].repeat(48, axis=1) for e in entries}
    return entries, Archive(tmp_path / "images.zip"), masks


def brightness(images: Tensor) -> Tensor:
    """(B, 3, H, W): background leads where an image is bright; two classes beside it."""
    grey = images.mean(dim=1)
    return torch.stack([4 * grey, torch.full_like(grey, 1.0), torch.full_like(grey, 0.5)], dim=1)


def test_the_offset_gives_the_share_of_the_masks(data: tuple[list[Entry], Archive, dict]) -> None:
    entries, archive, masks = data
    found = match_object_share(brightness, entries, archive, lambda e: masks[e.key], CPU)
    assert found.masks == 0.5
    assert 0 < found.network < 0.4
    assert found.offset > 0

    def lowered(images: Tensor) -> Tensor:
        return brightness(images) - torch.tensor([found.offset, 0.0, 0.0])[:, None, None]

    again = match_object_share(lowered, entries, archive, lambda e: masks[e.key], CPU)
    assert again.network == pytest.approx(0.5, abs=0.01)
    assert again.offset == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("ids", [0, 1, VOID])
def test_masks_of_one_kind_change_nothing(data: tuple[list[Entry], Archive, dict], ids: int) -> None:
    entries, archive, _ = data
    mask = np.full((36, 48), ids, np.uint8)
    found = match_object_share(brightness, entries, archive, lambda _: mask, CPU)
    assert found.offset == 0.0 and found.masks == float(ids == 1)


@pytest.mark.parametrize("head", ["deeplabv2", "deeplabv3", "lraspp"])
def test_the_bias_of_every_head_is_added_to_each_pixel(head: str) -> None:
    torch.manual_seed(0)
    network = Segmenter(Backbone("resnet10"), head, 4).eval()
    image = torch.rand(1, 3, 64, 80)
    with torch.no_grad():
        before = network(image)
        network.bias[0] -= 0.75
        after = network(image)
    change = torch.tensor([-0.75, 0.0, 0.0, 0.0])[:, None, None]
    torch.testing.assert_close(after, before + change, rtol=0, atol=1e-5)
