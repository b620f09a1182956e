"""The offset that makes the fraction of object pixels equal to that of the masks."""

import numpy as np
import pytest
import torch

from plda.data.images import VOID
from plda.data.index import evenly_spread
from plda.models.backbones import Backbone
from plda.models.segmenters import Segmenter
from plda.training.object_share import SAMPLE, lead, match_object_share

MASK = np.repeat(np.uint8([0, 1, VOID]), 12)[:, None].repeat(48, axis=1)  # a third of each


def scores(seed: int) -> torch.Tensor:
    """Return (3, 36, 48) scores; background is highest in about four fifths of the pixels."""
    noise = torch.rand(36, 48, generator=torch.Generator().manual_seed(seed))
    return torch.stack([4 * noise, torch.full_like(noise, 0.8), torch.full_like(noise, 0.5)])


def probabilities(seed: int, lower: float = 0.0) -> torch.Tensor:
    return (scores(seed) - torch.tensor([lower, 0.0, 0.0])[:, None, None]).softmax(dim=0)


def test_match_object_share_reaches_fraction_of_masks() -> None:
    found = match_object_share(lead(probabilities(seed), MASK) for seed in range(9))
    assert found.masks == 0.5
    assert 0.1 < found.network < 0.3
    assert found.offset > 0
    again = match_object_share(lead(probabilities(seed, found.offset), MASK) for seed in range(9))
    assert again.network == pytest.approx(0.5, abs=0.01)
    assert again.offset == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("ids", [0, 1, VOID])
def test_match_object_share_gives_no_offset_for_one_class(ids: int) -> None:
    found = match_object_share([lead(probabilities(0), np.full((36, 48), ids, np.uint8))])
    assert found.offset == 0.0 and found.masks == float(ids == 1)


def test_evenly_spread_gives_even_sample() -> None:
    assert evenly_spread(range(SAMPLE), SAMPLE) == range(SAMPLE)  # type: ignore[comparison-overlap, arg-type]
    assert list(evenly_spread(range(5 * SAMPLE), SAMPLE)) == list(range(0, 5 * SAMPLE, 5))  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["deeplabv2", "deeplabv3", "lraspp"])
def test_segmenter_bias_is_added_to_each_pixel(head: str) -> None:
    torch.manual_seed(0)
    network = Segmenter(Backbone("resnet10"), head, 4).eval()
    image = torch.rand(1, 3, 64, 80)
    with torch.no_grad():
        before = network(image)
        network.bias[0] -= 0.75
        after = network(image)
    change = torch.tensor([-0.75, 0.0, 0.0, 0.0])[:, None, None]
    torch.testing.assert_close(after, before + change, rtol=0, atol=1e-5)
