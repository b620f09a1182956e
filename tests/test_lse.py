"""Log-sum-exp pooling compared with its formula and its two limits."""

import math

import torch

from plda.models.lse import log_sum_exp


def test_log_sum_exp_matches_formula_and_limits() -> None:
    scores = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    pooled = log_sum_exp(scores, 5.0)
    for image in range(2):
        for c in range(3):
            values = scores[image, c].flatten().tolist()
            expected = math.log(sum(math.exp(5.0 * s) for s in values) / len(values)) / 5.0
            assert abs(float(pooled[image, c]) - expected) < 1e-12
    torch.testing.assert_close(log_sum_exp(scores, 1e-6), scores.mean(dim=(2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(log_sum_exp(scores, 1e6), scores.amax(dim=(2, 3)), atol=1e-5, rtol=0)
    assert torch.isfinite(log_sum_exp(1000 * scores, 5.0)).all()
