"""The guided filter compared with its definition, window by window."""

import numpy as np
import torch

from plda.refinement.guided_filter import guided_filter


def test_guided_filter_matches_its_definition() -> None:
    random = np.random.default_rng(0)
    image, flat = random.random((3, 7, 9)), random.random((7, 9))
    radius, softness = 2, 0.01

    def window(y: int, x: int) -> tuple[slice, slice]:
        return slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)

    fits = {}
    for y, x in np.ndindex(7, 9):
        colours, values = image[:, *window(y, x)].reshape(3, -1), flat[window(y, x)].ravel()
        both = np.cov(np.vstack([colours, values]), bias=True)
        a = np.linalg.solve(both[:3, :3] + softness * np.eye(3), both[:3, 3])
        fits[y, x] = (*a, values.mean() - a @ colours.mean(axis=1))
    expected = np.empty((7, 9))
    for y, x in np.ndindex(7, 9):
        near = [fit for (v, u), fit in fits.items() if abs(v - y) <= radius and abs(u - x) <= radius]
        expected[y, x] = np.mean(near, axis=0) @ [*image[:, y, x], 1]
    found = guided_filter(
        torch.tensor(image)[None], torch.tensor(flat)[None, None], radius=radius, softness=softness
    )
    assert np.abs(found[0, 0].numpy() - expected.clip(0, 1)).max() < 1e-12
    assert expected.min() > 0 and expected.max() < 1  # nothing was clipped
