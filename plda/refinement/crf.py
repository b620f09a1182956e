"""Dense CRF refinement (Krähenbühl and Koltun, NIPS 2011).

Every pixel p gets a label x_p, 0 for background or k for the k-th class, so that the energy is low:

    E(x) = sum_p -log P_p(x_p)  +  sum_{p<q} [x_p != x_q] (v_s s_pq + v_a a_pq),
    s_pq = exp(-|p - q|^2 / 2 sd_s^2)                                        smoothness: near pixels,
    a_pq = exp(-|p - q|^2 / 2 sd_a^2  -  |I_p - I_q|^2 / 2 sd_c^2)           appearance: and similar colours,

where P are the given probabilities, I the colours in [0, 255], and distances are in pixels. Mean-field
iterations start at Q = P:

    Q_p(l)  <-  P_p(l) exp(sum_q (v_s s_pq + v_a a_pq) Q_q(l)) / the sum of that over l.

The inference is the authors' second C++ release, through `pydensecrf`, an optional package (`make crf`). It
differs from the paper: each kernel is divided by sqrt(n_p n_q), n_p its sum over all q, so v is about the
largest total weight of all pixels; q = p is included; the sums over q are approximate.

Worker processes import this module, so it does not import torch, which would take each of them seconds.
"""

from types import ModuleType
from typing import Any

import numpy as np

from plda.errors import InputError

EPSILON = 1e-5  # minimum initial probability of a label


def crf(image: np.ndarray, maps: np.ndarray, background: float, **settings: Any) -> np.ndarray:
    """Refine maps by the image's colours, with background as one more label.

    Usual values come from the example in pydensecrf's README, which other code has copied: 10 iterations;
    smoothness of 3 px, weight 3; appearance of 80 px and 13 grey levels, weight 10. The code of IRN (Ahn, Cho
    and Kwak, CVPR 2019) uses 50 px and 5 grey levels for the appearance.

    Args:
        image: (H, W, 3) uint8 RGB.
        maps: (K, H, W) in [0, 1], one map per class that is present, K > 0.
        background: background score of every pixel, in (0, 1).
        settings: see `mean_field`.

    Returns:
        (K, H, W) float32 in [0, 1], m_k = Q_k / (max_j Q_j + Q_0), j > 0: the strongest class has the
        largest m, above 0.5 exactly where that class beats background.

    Raises:
        InputError: pydensecrf is not installed.
    """
    scores = np.stack([np.full(maps.shape[1:], background), *maps]).astype(np.float32)
    marginals = mean_field(image, scores / scores.sum(axis=0), **settings)
    refined: np.ndarray = marginals[1:] / (marginals[1:].max(axis=0) + marginals[0])
    return refined


def most_likely(image: np.ndarray, probabilities: np.ndarray, **settings: Any) -> np.ndarray:
    """Return the class of each pixel, from a network's probabilities and the image's colours.

    Usual values are those of DeepLab-v2 for PASCAL VOC, as in kazuto1011/deeplab-pytorch, configs/voc12.yaml:
    10 iterations; smoothness of 1 px, weight 3; appearance of 67 px and 3 grey levels, weight 4. DeepLab's
    authors searched for their values on 100 of VOC's val images (Chen et al., ICLR 2015).

    Args:
        image: (H, W, 3) uint8 RGB.
        probabilities: (C, H, W) float32, background first, C at most 256.
        settings: see `mean_field`.

    Returns:
        (H, W) uint8 class ids.

    Raises:
        InputError: pydensecrf is not installed.
    """
    ids: np.ndarray = mean_field(image, probabilities, **settings).argmax(axis=0)
    return ids.astype(np.uint8)


def mean_field(
    image: np.ndarray,
    probabilities: np.ndarray,
    *,
    iterations: int,
    smoothness_sd: float,
    smoothness_weight: float,
    appearance_sd: float,
    appearance_colour_sd: float,
    appearance_weight: float,
) -> np.ndarray:
    """Return the marginals Q.

    Args:
        image: (H, W, 3) uint8 RGB.
        probabilities: P, (L, H, W) float32; values below EPSILON are raised to EPSILON.
        iterations: number of mean-field iterations.
        smoothness_sd: sd_s, pixels.
        smoothness_weight: v_s.
        appearance_sd: sd_a, pixels.
        appearance_colour_sd: sd_c, grey levels of 0 to 255.
        appearance_weight: v_a.

    Returns:
        (L, H, W) float32, the same on every call; the arguments are not changed.

    Raises:
        InputError: pydensecrf is not installed.
    """
    labels, height, width = probabilities.shape
    field = _library().DenseCRF2D(width, height, labels)
    field.setUnaryEnergy(-np.log(np.maximum(probabilities, EPSILON)).reshape(labels, -1))
    field.addPairwiseGaussian(sxy=float(smoothness_sd), compat=float(smoothness_weight))
    field.addPairwiseBilateral(
        sxy=float(appearance_sd),
        srgb=float(appearance_colour_sd),
        rgbim=np.array(image, order="C"),  # a copy: the library needs this layout and a writable array
        compat=float(appearance_weight),
    )
    return np.array(field.inference(iterations)).reshape(probabilities.shape)


def require(field: str) -> None:
    """Check that pydensecrf is installed, before the first image.

    Args:
        field: the field of the params that requests the CRF.

    Raises:
        InputError: pydensecrf cannot be imported; the message names `field`.
    """
    try:
        _library()
    except InputError as error:
        raise InputError(f"params: {field}: {error}") from error


def _library() -> ModuleType:
    """Return pydensecrf's compiled module."""
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise InputError(
            "a dense CRF needs the package pydensecrf2: run `make crf`, or outside a clone "
            "`pip install pydensecrf2`. Both compile it, with a C++ compiler and Python's headers: "
            f"Debian's g++ and python3-dev ({error})"
        ) from error
    module: ModuleType = densecrf
    return module
