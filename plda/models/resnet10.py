"""The smallest plain ResNet, one basic block per stage; the default run trains it from random weights.

timm has only resnet10t, which has another stem and other shortcuts; its maps of drawn scenes are worse
(docs/measured/backbones.md).
"""

from typing import Any

from plda.vision import timm

default_cfgs = timm.models.generate_default_cfgs({"resnet10": {"first_conv": "conv1", "classifier": "fc"}})


@timm.models.register_model  # type: ignore[untyped-decorator]
def resnet10(pretrained: bool = False, **options: Any) -> Any:
    """Build the network for timm's registry, under this function's name; it has no weights to download."""
    layout = {"block": timm.models.resnet.BasicBlock, "layers": (1, 1, 1, 1)}
    return timm.models.build_model_with_cfg(timm.models.ResNet, "resnet10", pretrained, **layout, **options)
