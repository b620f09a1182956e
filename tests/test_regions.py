"""The refinement by regions compared with its definition, segment by segment."""

import numpy as np
import pytest
import torch

from plda.data.transforms import resize, unit
from plda.refinement.regions import regions, segments

SCALES = (20.0, 100.0)


def photo(seed: int = 0) -> torch.Tensor:
    """Return (1, 3, 60, 81) uint8: three areas of different colours, and noise."""
    random = torch.Generator().manual_seed(seed)
    image = torch.full((1, 3, 60, 81), 60.0)
    image[..., 20:50, 10:40] = torch.tensor([200.0, 40.0, 40.0])[:, None, None]
    image[..., 5:30, 50:75] = torch.tensor([40.0, 60.0, 190.0])[:, None, None]
    return (image + 6 * torch.randn(image.shape, generator=random)).clamp(0, 255).to(torch.uint8)


def test_regions_matches_definition() -> None:
    image, maps = photo(), torch.rand(1, 2, 15, 21)
    given = image.clone(), maps.clone()
    found = regions(image, maps, scales=SCALES)
    size = (30, 41)
    colours, finer = resize(unit(image), size)[0].permute(1, 2, 0).numpy(), resize(maps, size)[0].numpy()
    expected = np.zeros((2, *size))
    for scale in SCALES:
        numbers = segments(colours, scale)
        assert 3 <= numbers.max() < 400
        for number in np.unique(numbers):
            inside = numbers == number
            expected[:, inside] += finer[:, inside].mean(axis=1, keepdims=True) / len(SCALES)
    expected /= expected.max(axis=(1, 2), keepdims=True) + 1e-5
    assert np.abs(found[0].numpy() - expected).max() < 1e-5
    assert torch.equal(image, given[0]) and torch.equal(maps, given[1])


def test_regions_extends_partial_map_to_object() -> None:
    maps = torch.zeros(1, 1, 15, 21)
    maps[..., 6:9, 4:7] = 1.0  # about one ninth of the red square
    found = regions(photo(), maps, scales=SCALES)[0, 0]
    inside = torch.zeros(30, 41, dtype=torch.bool)
    inside[11:24, 6:19] = True
    assert found[inside].min() > 0.9
    assert found[14:16, 26:36].max() < 0.05  # the blue square


def test_regions_treats_images_independently() -> None:
    images, maps = torch.cat([photo(0), photo(1)]), torch.rand(2, 3, 15, 21)
    both = regions(images, maps, scales=SCALES)
    for i in range(2):
        assert torch.equal(regions(images[i : i + 1], maps[i : i + 1], scales=SCALES)[0], both[i])


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (33, 1)])
def test_regions_accepts_tiny_images(size: tuple[int, int]) -> None:
    image = torch.full((1, 3, *size), 9, dtype=torch.uint8)
    found = regions(image, torch.ones(1, 1, 1, 1), scales=SCALES)
    assert found.shape == (1, 1, (size[0] + 1) // 2, (size[1] + 1) // 2)
    assert found.min() > 0.99
