"""PAMR, pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020; docs/method.md, From maps to masks).

Ten times, a pixel's scores become the average of its neighbours' scores, weighted by the similarity of the
two colours. Every pixel p has 48 neighbours q, 8 at each dilation; with I the image and sigma_p the standard
deviation over all 9-neighbourhoods of p,

    a_pq = softmax over q of the channel mean of  -|I_p - I_q| / (1e-8 + 0.1 sigma_p).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

DILATIONS = (1, 2, 4, 8, 12, 24)


def pamr(image: Tensor, maps: Tensor, *, iterations: int = 10) -> Tensor:
    """Refine maps by the image's colours.

    Args:
        image: (B, 3, h, w) RGB, float in [0, 1], at the size of the maps.
        maps: (B, K, h, w) float scores; only the classes that are present are needed.
        iterations: number of averaging steps.

    Returns:
        (B, K, h, w), in the range of `maps`; the arguments are not changed.
    """
    affinity = _affinity(image)  # (B, Q, h, w)
    for _ in range(iterations):
        refined = torch.zeros_like(maps)
        for i, neighbour in enumerate(_neighbours(maps)):
            refined = torch.addcmul(refined, affinity[:, i : i + 1], neighbour)
        maps = refined
    return maps


def _affinity(image: Tensor) -> Tensor:
    """Compute affinities: (B, 3, h, w) to (B, Q, h, w), with sum 1 over the Q neighbours."""
    neighbours = torch.stack(list(_neighbours(image)), dim=2)  # (B, 3, Q, h, w)
    centre = image.unsqueeze(2)
    # the centre pixel is included once for each dilation
    every = torch.cat([neighbours, centre.expand(-1, -1, len(DILATIONS), -1, -1)], dim=2)
    deviation = every.std(dim=2, keepdim=True)
    distance = (neighbours - centre).abs() / (1e-8 + 0.1 * deviation)
    return torch.softmax(-distance.mean(dim=1), dim=1)


def _neighbours(x: Tensor) -> list[Tensor]:
    """Return the 8 neighbours at every dilation, each (B, C, h, w) and a view; borders are replicated."""
    height, width = x.shape[-2:]
    views = []
    for d in DILATIONS:
        padded = F.pad(x, (d, d, d, d), mode="replicate")
        views += [
            padded[..., d + dy : d + dy + height, d + dx : d + dx + width]
            for dy in (-d, 0, d)
            for dx in (-d, 0, d)
            if (dy, dx) != (0, 0)
        ]
    return views
