"""PLDA on a baseline: a second forward pass on the erased image, and the losses of the adaptation.

Du, Fu, Liu, "Pixel-Level Domain Adaptation" (IEEE TIP 2024); the formulas are in the other modules here:

    L = L_baseline + w_adversary · L_uda + w_supervision · (L_cps of source pixels + L_cps of target pixels)

A step costs one more forward pass without gradient, domain heads on the labelled pixels, and PAMR. None of
this is computed during the warm-up, and no loss with weight 0 is computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm  # base class of batch norm, also across processes

from plda.adaptation.adversary import DomainHeads, adversarial_loss, reversal_strength
from plda.adaptation.domains import IGNORED, confident, domain_labels, erase
from plda.adaptation.supervision import pseudo_labels, supervision_loss
from plda.collectives import mean_divisor
from plda.data.transforms import full_precision, resize
from plda.models.baselines import Baseline
from plda.models.cam import CamOutput
from plda.params import Adaptation

PUBLISHED = Adaptation(
    enabled=True,
    threshold=0.6,
    adversary=1.0,
    reversal="rising",
    features="stage4",
    supervision=1.0,
    background="none",
    pamr_scale=1,
    per_labelled=False,
    warmup=0.0,
)
"""The values of the paper and its code."""


class PldaLearner(nn.Module):
    """The training module of a baseline with PLDA: takes a batch and returns losses.

    Attributes:
        network: the baseline, which is saved after training.
        heads: the domain heads, which are not needed after training.
    """

    def __init__(self, network: Baseline, classes: int, settings: Adaptation) -> None:
        """Build the domain heads.

        Args:
            network: the baseline.
            classes: number of tag classes, without background.
            settings: `train_cam.adaptation` of the params; params.yaml explains its values.
        """
        super().__init__()
        self.network = network
        self.heads = DomainHeads(network.backbone.channels[settings.features], classes)
        self.settings = settings

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the losses of a batch.

        Args:
            batch: `image` (B, 3, H, W) RGB in [0, 1] and `tags` (B, C) float 0 or 1.
            progress: training progress, in [0, 1).

        Returns:
            Scalars: `loss`, the sum that is minimised, and its parts before their weights: the baseline's,
            `adversary` (L_uda) and `supervision` (L_cps of source and target pixels), 0 if disabled; and
            `reversal`, the strength lambda of the gradient reversal, 0 if nothing is reversed.
        """
        image, tags, settings = batch["image"], batch["tags"], self.settings
        output, parts = self.network.losses(image, tags)
        loss = torch.stack(list(parts.values())).sum()
        parts |= {name: torch.zeros_like(loss) for name in ("adversary", "supervision", "reversal")}
        if progress >= settings.warmup and (settings.adversary or settings.supervision):
            adapting = (progress - settings.warmup) / (1 - settings.warmup)
            parts |= self._adaptation(image, tags, output, reversal_strength(adapting, settings.reversal))
            loss = (
                loss + settings.adversary * parts["adversary"] + settings.supervision * parts["supervision"]
            )
        return {"loss": loss, **parts}

    def _adaptation(
        self, image: Tensor, tags: Tensor, output: CamOutput, strength: float
    ) -> dict[str, Tensor]:
        source = confident(output.maps, tags, self.settings.threshold)
        erased = erase(image, source, self.network.backbone.mean)
        with torch.no_grad(), statistics_kept(self.network):
            second: CamOutput = self.network(erased)
        target = confident(second.maps, tags, self.settings.threshold)
        losses = {}
        if self.settings.adversary:
            losses["adversary"] = self._adversary(output, domain_labels(source, target), strength)
            losses["reversal"] = torch.full_like(losses["adversary"].detach(), strength)
        if self.settings.supervision:
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
        features = output.features[self.settings.features]
        if features.shape[-2:] != labels.shape[-2:]:
            labels = F.interpolate(labels.float(), features.shape[-2:], mode="nearest").long()
        labelled = (labels != IGNORED).any(dim=1)
        logits = self.heads(features, strength, labelled)
        with full_precision(logits):  # the formulas need full precision
            return self._mean(adversarial_loss(logits.float(), labels), labelled)

    def _supervision(self, images: Tensor, tags: Tensor, scores: Tensor, teaches: Tensor) -> Tensor:
        """Return L_cps of both passes; each argument (2 B, ...) has the first pass in its first half."""
        keeps = self.settings.background
        # "image" drops the background of the erased image: the network predicts background where the object
        # was, and often where the rest of the object still is
        with full_precision(scores):
            size = [self.settings.pamr_scale * side for side in scores.shape[-2:]]
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
        if not self.settings.per_labelled:
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
