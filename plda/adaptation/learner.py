"""PLDA on a baseline: a second look at the erased image, and the adaptation's losses beside the baseline's.

Du, Fu, Liu, "Pixel-Level Domain Adaptation" (IEEE TIP 2024); the formulas are in the modules beside this one:

    L = L_baseline + w_adversary · L_uda + w_supervision · (L_cps of source pixels + L_cps of target pixels)

A step costs one more forward pass without gradient, domain heads on the labelled pixels, and PAMR; nothing of
it is done during the warm-up, nor for a weight of 0.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm  # also what it is over several processes

from plda.adaptation.adversary import DomainHeads, adversarial_loss
from plda.adaptation.domains import IGNORED, confident, domain_labels, erase
from plda.adaptation.reversal import reversal_strength
from plda.adaptation.supervision import pseudo_labels, supervision_loss
from plda.data.transforms import full_precision, resize
from plda.models.baselines import Baseline
from plda.models.cam import CamOutput
from plda.shares import share


@dataclass(frozen=True)
class Switches:
    """What may be chosen; the first value named is the published one.

    Attributes:
        threshold: tau, 0.6: how strongly a pixel must respond to be source or target.
        adversary: weight of L_uda, 1; 0 leaves it out.
        reversal: "rising" with the training's progress, or "constant": lambda of the gradient reversal.
        features: "stage4" or "stage3": which of the backbone's maps the domain heads see.
        supervision: weight of L_cps, 1; 0 leaves it out.
        background: "none": pseudo-supervision keeps no background pixels; "both": it keeps those of both
            looks; "image": those of the look at the whole image only, since the erased one shows background
            where the object was, and often where its rest still is.
        pamr_scale: 1: PAMR refines pseudo-labels at the maps' size; 2, 4, ...: so many times finer.
        per_labelled: False: losses are means over all pixels; True: over the labelled ones.
        warmup: 0: the share of the training that passes before adaptation begins.
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
    """A baseline as it is trained with PLDA: a batch in, losses out.

    Attributes:
        network: the baseline, which is what is kept.
        heads: the domain heads, which have done their work once the training ends.
    """

    def __init__(self, network: Baseline, classes: int, switches: Switches) -> None:
        """`classes` counts those of the tags, without background."""
        super().__init__()
        self.network = network
        self.heads = DomainHeads(network.backbone.channels[switches.features], classes)
        self.switches = switches

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            batch: `image` (B, 3, H, W) RGB in [0, 1] and `tags` (B, C) float 0 or 1.
            progress: of the training, in [0, 1).

        Returns:
            Scalars: `loss`, the sum that is minimised, and its parts before their weights: the baseline's,
            `adversary` (L_uda) and `supervision` (L_cps of source and target pixels), 0 where left out.
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
            # both looks side by side, since PAMR on small maps is many small steps
            losses["supervision"] = self._supervision(
                torch.cat([image, erased]),
                torch.cat([tags, tags]),
                torch.cat([output.scores, second.scores]),
                torch.cat([source, target]),
            )
        return losses

    def _adversary(self, output: CamOutput, labels: Tensor, strength: float) -> Tensor:
        """L_uda; `labels` are (B, C, h, w)."""
        features = output.features[self.switches.features]
        if features.shape[-2:] != labels.shape[-2:]:
            labels = F.interpolate(labels.float(), features.shape[-2:], mode="nearest").long()
        labelled = (labels != IGNORED).any(dim=1)
        logits = self.heads(features, strength, labelled)
        with full_precision(logits):  # the formulas need all their digits
            return self._mean(adversarial_loss(logits.float(), labels), labelled)

    def _supervision(self, images: Tensor, tags: Tensor, scores: Tensor, teaches: Tensor) -> Tensor:
        """L_cps of both looks, of which each argument holds the first in its first half, (2 B, ...)."""
        keeps = self.switches.background
        with full_precision(scores):
            size = [self.switches.pamr_scale * side for side in scores.shape[-2:]]
            small = resize(images.float(), size)
            labels = pseudo_labels(scores, small, tags, teaches, background=keeps != "none")
            of_source, of_target = labels.chunk(2)
            if keeps == "image":
                of_target = torch.cat([torch.zeros_like(of_target[:, :1]), of_target[:, 1:]], dim=1)
            taught, _ = scores.chunk(2)  # what was said of the erased image carries no gradient
            losses = [
                self._mean(supervision_loss(taught, labels), labels.any(dim=1))
                for labels in (of_source, of_target)
            ]
        return torch.stack(losses).sum()

    def _mean(self, loss: Tensor, labelled: Tensor) -> Tensor:
        """A mean over all pixels, or the same over the labelled ones, (B, h, w) bool."""
        if not self.switches.per_labelled:
            return loss
        return loss * labelled.numel() / share(labelled.sum())


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Within, batch norm goes by the batch at hand as in training, and remembers nothing of it."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
