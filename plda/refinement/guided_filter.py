"""The guided filter (He, Sun and Tang, TPAMI 2013): maps that change only where the image's colours change.

In each window w of (2 r + 1) x (2 r + 1) pixels, cut off at the border, a map m is fitted by a linear
function of the colours I, with a ridge eps that keeps the fit flat where the colours are flat:

    a_w = (Sigma_w + eps U)^-1 cov_w(I, m),   b_w = mean_w(m) - a_w . mean_w(I),

where Sigma_w is the covariance of the colours and U the identity. A pixel's new value is a . I + b, with the
means of a_w and b_w over all windows that contain the pixel.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def guided_filter(image: Tensor, maps: Tensor, *, radius: int, softness: float) -> Tensor:
    """Refine maps by the image's colours.

    Args:
        image: (B, 3, h, w) RGB, float in [0, 1], at the size of the maps.
        maps: (B, K, h, w) float in [0, 1]; absent classes may be left out.
        radius: r, pixels of the maps.
        softness: eps, in squared colours: edges with a contrast far below sqrt(eps) are smoothed.

    Returns:
        (B, K, h, w), clipped to [0, 1], because a fit may leave this range; no argument is changed.
    """

    def mean(x: Tensor) -> Tensor:
        """Return the mean over each pixel's window; (..., h, w)."""
        side = 2 * radius + 1
        pooled = F.avg_pool2d(x.flatten(0, -3), side, stride=1, padding=radius, count_include_pad=False)
        return pooled.view(x.shape)

    def covariance(x: Tensor, y: Tensor) -> Tensor:
        """(B, X, h, w) and (B, Y, h, w) to (B, X, Y, h, w)."""
        x, y = x[:, :, None], y[:, None]
        return mean(x * y) - mean(x) * mean(y)

    own, shared = (covariance(image, x).permute(0, 3, 4, 1, 2) for x in (image, maps))  # (B, h, w, 3, ...)
    ridge = softness * torch.eye(3, dtype=image.dtype, device=image.device)
    slopes = torch.linalg.solve(own + ridge, shared).permute(0, 3, 4, 1, 2)  # (B, 3, K, h, w)
    offsets = mean(maps) - (slopes * mean(image)[:, :, None]).sum(dim=1)
    fitted = (mean(slopes) * image[:, :, None]).sum(dim=1) + mean(offsets)
    return fitted.clamp(0, 1)
