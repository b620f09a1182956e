"""Stage download_backbone."""

from pathlib import Path

from plda.models.saved import save
from plda.models.weights import first_weights
from plda.params import DownloadBackbone


def download_backbone(
    cam_backbone: Path, segmenter_backbone: Path, *, download_backbone: DownloadBackbone, seed: int
) -> None:
    """Fetch, check and keep the weights that the two networks start from.

    Args:
        cam_backbone: written: name and weights, under their published names, for train_cam.
        segmenter_backbone: written: the same for train_segmenter.
        download_backbone: its section of the params.
        seed: of weights that are drawn.
    """
    wanted = {"cams": cam_backbone, "segmenter": segmenter_backbone}
    for role, path in wanted.items():
        asked = getattr(download_backbone, role)
        weights = first_weights(asked, f"download_backbone.{role}", seed, path)
        save(path, {"name": asked.name, "weights": dict(weights)})
