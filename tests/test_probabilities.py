"""A network's probabilities, refined by the image's colours."""

from collections.abc import Sequence

import pytest
import torch
import yaml
from conftest import ROOT
from torch import Tensor

from plda.data.transforms import resize
from plda.params import Params, check
from plda.refinement.pamr import pamr
from plda.refinement.probabilities import USUAL, refined_probabilities
from plda.refinement.regions import average
from plda.use.preset import FOLDER, preset_text


def halves(left: int = 30) -> Tensor:
    """Return (1, 3, 40, 61) uint8: red left of column `left`, blue from there on, and noise."""
    image = torch.empty(1, 3, 40, 61)
    image[..., :left] = torch.tensor([200.0, 50.0, 40.0])[:, None, None]
    image[..., left:] = torch.tensor([40.0, 60.0, 190.0])[:, None, None]
    noise = 5 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + noise).clamp(0, 255).to(torch.uint8)


def coarse(_images: Tensor, size: Sequence[int]) -> Tensor:
    """Return (1, 2, *size): class 1 on the left, with a blurred outline four columns too far right."""
    place = torch.arange(size[1]) * 61 / size[1]
    left = ((34 - place) / 16 + 0.5).clamp(0.05, 0.95).expand(1, 1, *size)
    return torch.cat([1 - left, left], dim=1)


def test_refined_probabilities_follow_colour_edge() -> None:
    plain = refined_probabilities(coarse, halves(), {})
    assert torch.equal(plain, coarse(halves(), (40, 61)))
    refined = refined_probabilities(coarse, halves(), USUAL)
    assert refined.shape == plain.shape
    torch.testing.assert_close(refined.sum(dim=1), torch.ones(1, 40, 61))
    assert (plain.argmax(dim=1)[..., 31:34] == 1).all()
    assert (refined.argmax(dim=1)[..., :29] == 1).all()
    assert (refined.argmax(dim=1)[..., 32:] == 0).all()


def test_refined_probabilities_chain_steps_at_half_size() -> None:
    images = halves()
    shares = coarse(images, (20, 31))
    shares = pamr(resize(images / 255, (20, 31)), shares, iterations=3)
    expected = resize(average(images, shares, scales=[20.0]), (40, 61))
    chain = {"pamr": {"iterations": 3}, "regions": {"scales": [20.0]}}
    torch.testing.assert_close(refined_probabilities(coarse, images, chain), expected)


@pytest.mark.parametrize("name", ["creatures", "photos"])
def test_predict_uses_refinement_of_presets(name: str) -> None:
    text = preset_text(name, folder=ROOT / FOLDER)
    settings = check(Params, yaml.safe_load(text), name).predict_masks
    assert {step: settings.of(step) for step in settings.refinement} == USUAL


def test_refined_probabilities_reject_unknown_step() -> None:
    with pytest.raises(ValueError, match="blur: is not a refinement of probabilities"):
        refined_probabilities(coarse, halves(), {"blur": {}})
