"""Stage download_backbone."""

from pathlib import Path

from plda.errors import InputError
from plda.files import write_json
from plda.models.backbones import reading
from plda.models.saved import save
from plda.models.weights import first_weights
from plda.params import DownloadBackbone


def download_backbone(
    cam_backbone: Path,
    segmenter_backbone: Path,
    backbone_origins: Path,
    *,
    download_backbone: DownloadBackbone,
    seed: int,
) -> None:
    """Download, check and save the first weights of both backbones.

    Args:
        cam_backbone: output: backbone name, weights and origin for train_cam.
        segmenter_backbone: output: backbone name, weights and origin for the segmentation networks.
        backbone_origins: output: repository, revision, sha256, licence and layout of both sets of weights.
        download_backbone: section `download_backbone` of params.yaml.
        seed: random seed for weights that are initialised at random.

    Raises:
        InputError: weights cannot be downloaded or do not fit, or a network gives no feature maps.
    """
    for role in ("cams", "segmenter"):
        try:
            reading(getattr(download_backbone, role).name)
        except ValueError as error:
            raise InputError(f"params: download_backbone.{role}.name: {error}") from error
    origins = {}
    for role, path in {"cams": cam_backbone, "segmenter": segmenter_backbone}.items():
        asked = getattr(download_backbone, role)
        first = first_weights(asked, f"download_backbone.{role}", seed, path)
        origins[role] = {"name": asked.name, **first.origin}
        save(path, {"name": asked.name, "weights": first.tensors, "origin": first.origin})
    write_json(backbone_origins, origins)
