"""The baselines by name, and the training of a baseline on image tags."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from plda.models.backbones import Backbone
from plda.models.cam import CamNetwork
from plda.models.lse import LseNetwork
from plda.models.saved import Kind
from plda.models.seam import SeamNetwork

Baseline = CamNetwork | SeamNetwork
KINDS: dict[str, Callable[[Backbone, int], Baseline]] = {
    "cam": CamNetwork,
    "seam": SeamNetwork,
    "lse": LseNetwork,
}


def build_baseline(name: str, backbone: Backbone, classes: int) -> Baseline:
    """Build the baseline `name`, see KINDS, for `classes` classes without background."""
    return KINDS[name](backbone, classes)


CAM = Kind("cam", lambda backbone, a: build_baseline(a.head, backbone, len(a.classes) - 1))


class TagLearner(nn.Module):
    """The training module of a baseline: takes a batch and returns losses.

    Attributes:
        network: the baseline, which is saved after training.
    """

    def __init__(self, network: Baseline) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, Tensor], _progress: float) -> dict[str, Tensor]:
        """Return `loss`, and its parts if there are several. A batch has `image` and `tags`."""
        _, parts = self.network.losses(batch["image"], batch["tags"])
        loss = torch.stack(list(parts.values())).sum()
        return {"loss": loss, **(parts if len(parts) > 1 else {})}
