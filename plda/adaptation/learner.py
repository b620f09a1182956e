"""PLDA on a baseline: a second forward pass on the erased image, and the losses of the adaptation.

Du, Fu, Liu, "Pixel-Level Domain Adaptation" (IEEE TIP 2024); the formulas are in the other modules here:

    L = L_baseline + w_adversary · L_uda + w_supervision · (L_cps of source pixels + L_cps of target pixels)

A step costs one more forward pass without gradient, domain heads on the labelled pixels, and PAMR. None of
this is computed during the warm-up, and no loss with weight 0 is computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm  # base class of batch norm, also across processes

from plda.adaptation.adversary import DomainHeads, adversarial_loss
from plda.adaptation.domains import IGNORED, confident, domain_labels, erase
from plda.adaptation.reversal import reversal_strength
from plda.adaptation.supervision import pseudo_labels, supervision_loss
from plda.collectives import mean_divisor
from plda.data.transforms import full_precision, resize
from plda.models.baselines import Baseline
from plda.models.cam import CamOutput


@dataclass(frozen=True)
class Switches:
    """Options of PLDA; the first value of each is the published one.

    Attributes:
        threshold: tau, 0.6: response above which a pixel is source or target.
        adversary: weight of L_uda, 1; 0 disables it.
        reversal: lambda of the gradient reversal: "rising" with the training progress, or "constant".
        features: "stage4" or "stage3": backbone features that the domain heads receive.
        supervision: weight of L_cps, 1; 0 disables it.
        background: background pixels of pseudo-supervision. "none": dropped; "both": kept from both forward
            passes; "image": kept from the pass on the whole image only, because the pass on the erased image
            predicts background where the object was, and often where the rest of the object still is.
        pamr_scale: 1: PAMR refines pseudo-labels at the maps' size; 2, 4, ...: at this multiple of it.
        per_labelled: False: losses are means over all pixels; True: over the labelled pixels.
        warmup: 0: fraction of the training before adaptation begins.
    """

    threshold: float
    adversary: float
    reversal: str
    features: str
    supervision: float
    background: str
    pamr_scale: int
    per_labelled: bool
    warmup: float


class PldaLearner(nn.Module):
    """The training module of a baseline with PLDA: takes a batch and returns losses.

    Attributes:
        network: the baseline, which is saved after training.
        heads: the domain heads, which are not needed after training.
    """

    def __init__(self, network: Baseline, classes: int, switches: Switches) -> None:
        """Build the domain heads; `classes` is the number of tag classes, without background."""
        super().__init__()
        self.network = network
        self.heads = DomainHeads(network.backbone.channels[switches.features], classes)
        self.switches = switches

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the losses of a batch.

        Args:
            batch: `image` (B, 3, H, W) RGB in [0, 1] and `tags` (B, C) float 0 or 1.
            progress: training progress, in [0, 1).

        Returns:
            Scalars: `loss`, the sum that is minimised, and its parts before their weights: the baseline's,
            `adversary` (L_uda) and `supervision` (L_cps of source and target pixels), 0 if disabled.
        """
        image, tags, switches = batch["image"], batch["tags"], self.switches
        output, parts = self.network.losses(image, tags)
        loss = torch.stack(list(parts.values())).sum()
        parts |= {"adversary": torch.zeros_like(loss), "supervision": torch.zeros_like(loss)}
        if progress >= switches.warmup and (switches.adversary or switches.supervision):
            adapting = (progress - switches.warmup) / (1 - switches.warmup)
            parts |= self._adaptation(image, tags, output, reversal_strength(adapting, switches.reversal))
            loss = (
                loss + switches.adversary * parts["adversary"] + switches.supervision * parts["supervision"]
            )
        return {"loss": loss, **parts}

    def _adaptation(
        self, image: Tensor, tags: Tensor, output: CamOutput, strength: float
    ) -> dict[str, Tensor]:
        source = confident(output.maps, tags, self.switches.threshold)
        erased = erase(image, source, self.network.backbone.mean)
        with torch.no_grad(), statistics_kept(self.network):
            second: CamOutput = self.network(erased)
        target = confident(second.maps, tags, self.switches.threshold)
        losses = {}
        if self.switches.adversary:
            losses["adversary"] = self._adversary(output, domain_labels(source, target), strength)
        if self.switches.supervision:
            # both passes in one batch, because PAMR on small maps is many small operations
            losses["supervision"] = self._supervision(
                torch.cat([image, erased]),
                torch.cat([tags, tags]),
                torch.cat([output.scores, second.scores]),
                torch.cat([source, target]),
            )
        return losses

    def _adversary(self, output: CamOutput, labels: Tensor, strength: float) -> Tensor:
        """Return L_uda; `labels` are (B, C, h, w)."""
        features = output.features[self.switches.features]
        if features.shape[-2:] != labels.shape[-2:]:
            labels = F.interpolate(labels.float(), features.shape[-2:], mode="nearest").long()
        labelled = (labels != IGNORED).any(dim=1)
        logits = self.heads(features, strength, labelled)
        with full_precision(logits):  # the formulas need full precision
            return self._mean(adversarial_loss(logits.float(), labels), labelled)

    def _supervision(self, images: Tensor, tags: Tensor, scores: Tensor, teaches: Tensor) -> Tensor:
        """Return L_cps of both passes; each argument (2 B, ...) has the first pass in its first half."""
        keeps = self.switches.background
        with full_precision(scores):
            size = [self.switches.pamr_scale * side for side in scores.shape[-2:]]
            small = resize(images.float(), size)
            labels = pseudo_labels(scores, small, tags, teaches, background=keeps != "none")
            of_source, of_target = labels.chunk(2)
            if keeps == "image":
                of_target = torch.cat([torch.zeros_like(of_target[:, :1]), of_target[:, 1:]], dim=1)
            taught, _ = scores.chunk(2)  # the scores of the erased image carry no gradient
            losses = [
                self._mean(supervision_loss(taught, labels), labels.any(dim=1))
                for labels in (of_source, of_target)
            ]
        return torch.stack(losses).sum()

    def _mean(self, loss: Tensor, labelled: Tensor) -> Tensor:
        """Return `loss`, a mean over all pixels, or convert it to a mean over `labelled`, (B, h, w) bool."""
        if not self.switches.per_labelled:
            return loss
        return loss * labelled.numel() / mean_divisor(labelled.sum())


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Keep batch norm's running statistics unchanged in this context; it uses the current batch."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
