"""The adversarial loss: trains features that do not separate the two domains (docs/method.md, PLDA, step 2).

    features -> gradient reversal -> trunk -> one two-way head per class -> L_uda

The heads learn to separate source from target pixels of their class; the reversed gradient makes the backbone
remove what they use. With p the head's softmax, H its entropy (detached), and d the domain label,

    L_uda = sum over classes, mean over the batch and all pixels of
            [d is a domain] · CE(p, d) · (1 + exp(-H)) · (n - n_d) / (1 + n)

where n_d counts the image's pixels of that domain for that class and n = n_source + n_target.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from plda.adaptation.domains import SOURCE, TARGET, balance_weights


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.strength * gradient, None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """Return `x`; in the backward pass, its gradient is multiplied by `-strength`."""
    reversed_x: Tensor = _Reversal.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_x


def reversal_strength(progress: float, schedule: str = "rising") -> float:
    """Return lambda of the gradient reversal at training progress t in [0, 1].

    "rising": 2 / (1 + exp(-10 t)) - 1 (Ganin and Lempitsky, 2015), the published schedule; "constant": 1.
    """
    return 1.0 if schedule == "constant" else 2 / (1 + math.exp(-10 * progress)) - 1


class DomainHeads(nn.Module):
    """Trunk and heads: D-1024, ReLU, dropout, 1024-512, ReLU, dropout, and two outputs per class.

    The published layers are 1x1 convolutions over the whole map. Here the same layers process only the
    labelled pixels, as rows: the loss is the same; if a quarter of the pixels is labelled, the work is a
    quarter.
    """

    def __init__(self, channels: int, classes: int, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, 1024),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(1024, 512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, 2 * classes),
        )

    def forward(self, features: Tensor, strength: float, where: Tensor) -> Tensor:
        """Compute the logits of each class at the pixels `where`.

        Args:
            features: (B, D, h, w).
            strength: lambda of the gradient reversal.
            where: (B, h, w) bool.

        Returns:
            (B, C, 2, h, w), source first; 0 at all other pixels.
        """
        rows = features.movedim(1, -1)[where]  # (N, D)
        logits = self.layers(reverse_gradient(rows, strength))  # (N, 2 C)
        full: Tensor = logits.new_zeros(*where.shape, logits.shape[1])
        full[where] = logits
        return full.view(*where.shape, -1, 2).permute(0, 3, 4, 1, 2)


def adversarial_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return L_uda.

    Args:
        logits: (B, C, 2, h, w), source first.
        labels: (B, C, h, w) int64: SOURCE, TARGET, or any other value for ignored pixels.

    Returns:
        A scalar; 0 if no pixel has a label. A class without labels adds nothing.
    """
    batch, _, _, height, width = logits.shape
    log_p = logits.log_softmax(dim=2)
    detached = log_p.detach()
    entropy = -(detached.exp() * detached).sum(dim=2)  # (B, C, h, w)
    counts = torch.stack([(labels == d).sum(dim=(2, 3)) for d in (SOURCE, TARGET)], dim=2)  # (B, C, 2)
    balance = balance_weights(counts, log_p.dtype)  # (B, C, 2)
    one_hot = torch.stack([labels == d for d in (SOURCE, TARGET)], dim=2)  # (B, C, 2, h, w)
    weighted = (one_hot * -log_p * balance[..., None, None]).sum(dim=2) * (1 + torch.exp(-entropy))
    return weighted.sum() / (batch * height * width)
