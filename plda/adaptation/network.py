"""PLDA on a baseline: the network, a second look at the erased image, and the adaptation's losses.

Du, Fu, Liu, "Pixel-Level Domain Adaptation" (IEEE TIP 2024); the formulas are in the modules beside this one.
A step costs one more forward pass without gradient, the domain heads and PAMR.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from plda.adaptation.adversary import DomainHeads, adversarial_loss, reversal_strength
from plda.adaptation.domains import IGNORED, confident, domain_labels, erase
from plda.adaptation.supervision import pseudo_labels, supervision_loss
from plda.data.transforms import denormalise, resize
from plda.models.backbones import Backbone
from plda.models.cam import CamNetwork, CamOutput, tag_loss


@dataclass(frozen=True)
class Switches:
    """What may be chosen; the first value named is the published one.

    Attributes:
        threshold: tau, 0.6: how strongly a pixel must respond to be source or target.
        adversary: weight of L_uda, 1; 0 leaves it out.
        supervision: weight of L_cps, 1; 0 leaves it out.
        background: False: pseudo-supervision keeps no background pixels; True: it keeps them.
        per_labelled: False: losses are means over all pixels; True: over the labelled ones.
        warmup: 0: the share of the training that passes before adaptation begins.
    """

    threshold: float
    adversary: float
    supervision: float
    background: bool
    per_labelled: bool
    warmup: float


class PldaOutput(NamedTuple):
    """What the network says of a batch, and what the adaptation makes of it.

    Attributes:
        cam: the baseline's output.
        adversary: L_uda, a scalar.
        supervision: L_cps of source and target pixels together, a scalar.
        source: share of pixels that are source for some class, a scalar.
        target: the same of target.
    """

    cam: CamOutput
    adversary: Tensor
    supervision: Tensor
    source: Tensor
    target: Tensor


class PldaNetwork(nn.Module):
    """A baseline with domain heads beside it. Only the baseline, `cam`, is needed once it is trained."""

    def __init__(self, cam: CamNetwork, switches: Switches) -> None:
        super().__init__()
        self.cam = cam
        self.heads = DomainHeads(cam.backbone.channels["stage4"], cam.head.out_channels)
        self.switches = switches

    @property
    def backbone(self) -> Backbone:
        """The part that learns at the base learning rate."""
        return self.cam.backbone

    def forward(self, image: Tensor, tags: Tensor, strength: float) -> PldaOutput:
        """(B, 3, H, W) normalised RGB, (B, C) tags, and lambda of the gradient reversal."""
        switches = self.switches
        output: CamOutput = self.cam(image)
        source = confident(output.scores, tags, switches.threshold)
        erased = erase(image, source)
        with torch.no_grad(), statistics_kept(self.cam):
            second: CamOutput = self.cam(erased)
        target = confident(second.scores, tags, switches.threshold)
        logits = self.heads(output.features["stage4"], strength)

        with torch.autocast(image.device.type, enabled=False):  # the formulas need all their digits
            labels = domain_labels(source, target)
            adversary = self._mean(adversarial_loss(logits.float(), labels), (labels != IGNORED).any(dim=1))
            supervision = torch.zeros_like(adversary)
            for pixels, scores, seen in ((source, output.scores, image), (target, second.scores, erased)):
                small = resize(denormalise(seen.float()), scores.shape[-2:])
                sure = pseudo_labels(scores, small, tags, pixels, background=switches.background)
                loss = supervision_loss(output.scores, sure)
                supervision = supervision + self._mean(loss, sure.any(dim=1))
        shares = [pixels.any(dim=1).float().mean() for pixels in (source, target)]
        return PldaOutput(output, adversary, supervision, *shares)

    def _mean(self, loss: Tensor, labelled: Tensor) -> Tensor:
        """A mean over all pixels, or the same over the labelled ones, (B, h, w) bool."""
        if not self.switches.per_labelled:
            return loss
        return loss * labelled.numel() / labelled.sum().clamp(min=1)


def plda_losses(network: nn.Module, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
    """What a PLDA network is trained on.

    Args:
        network: a PldaNetwork, or a wrapper of one that has its attributes.
        batch: `image` (B, 3, H, W) and `tags` (B, C).
        progress: of the training, in [0, 1).

    Returns:
        Scalars: `loss`, the sum that is minimised; its parts `tags`, `adversary`, `supervision`, before their
        weights; and the shares of `source` and `target` pixels.
    """
    switches = cast(Switches, network.switches)
    adapting = progress >= switches.warmup
    progress = (progress - switches.warmup) / (1 - switches.warmup) if adapting else 0.0
    output: PldaOutput = network(batch["image"], batch["tags"], reversal_strength(progress))
    tags = tag_loss(output.cam, batch["tags"])
    adaptation = switches.adversary * output.adversary + switches.supervision * output.supervision
    return {
        "loss": tags + float(adapting) * adaptation,
        "tags": tags,
        "adversary": output.adversary,
        "supervision": output.supervision,
        "source": output.source,
        "target": output.target,
    }


def baseline_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The baseline's part of a PldaNetwork's weights; a baseline's own as they are."""
    parts = {name.removeprefix("cam."): w for name, w in weights.items() if name.startswith("cam.")}
    return parts or dict(weights)


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Within, batch norm goes by the batch at hand as in training, and remembers nothing of it."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
