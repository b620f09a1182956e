"""timm backbones other than those that tests/test_models.py compares with torchvision."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.backbones import FAMILIES, exported, kept, own_stride, row, trained
from plda.backbone_names import architectures
from plda.models.backbones import STAGES, Backbone, reading, refuse_unfit
from plda.models.baselines import build_baseline
from plda.models.boundary import BoundaryNetwork
from plda.models.inference import Inference
from plda.models.saved import Architecture
from plda.models.segmenters import SEGMENTER
from plda.vision import timm

IN_GATE = ("tf_efficientnet_lite0", "mobilenetv3_small_050", "test_vit", "convnext_atto", "test_resnet")


def test_architectures_match_timm_registry() -> None:
    assert architectures() == {*timm.list_models(), "resnet38d"}


@pytest.mark.parametrize("name", IN_GATE)
def test_backbone_families_train_with_plda_and_are_saved(name: str, tmp_path: Path) -> None:
    stride = own_stride(name)
    trained(name, stride)
    kept(name, stride, tmp_path)


def test_network_with_tensorflow_padding_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert exported("tf_efficientnet_lite0", 16, tmp_path) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for names in FAMILIES.values() for name in names])
def test_backbone_table_matches_measurement(name: str) -> None:
    """Compare with docs/measured/backbones.md; run by `pytest -m slow`."""
    table = (Path(__file__).parents[1] / "docs/measured/backbones.md").read_text()
    said = next(line for line in table.splitlines() if f"| {name} |" in line and " | " in line).split("|")
    found = row(name)
    assert [said[4 + i].strip() == "ok" for i in range(4)] == [
        found[step] == "ok" for step in ("build", "PLDA", "file", "ONNX")
    ]


def test_vision_transformer_gives_maps_for_any_image_size() -> None:
    """The maps are the normalised blocks at 1/4, 1/2, 3/4 and the end; images are padded to whole patches."""
    backbone = Backbone("vit_tiny_patch16_224", output_stride=16).eval()
    assert backbone.strides == dict.fromkeys(STAGES, 16)
    image = torch.rand(2, 3, 50, 71)
    with torch.no_grad():
        ours = backbone(image)
        padded = nn.functional.pad(backbone.normalise(image), (0, 9, 0, 14))
        theirs = backbone.network.forward_intermediates(
            padded, indices=[2, 5, 8, 11], norm=True, intermediates_only=True
        )
    for stage, expected in zip(STAGES, theirs, strict=True):
        assert ours[stage].shape == (2, 192, 4, 5)
        assert torch.equal(ours[stage], expected)
    boundary = BoundaryNetwork(backbone)
    assert boundary(image).shape == (2, 1, 13, 18)  # its maps are nevertheless at stride 4


def test_reading_requires_stride_14_for_patches_of_14() -> None:
    assert reading("vit_small_patch14_dinov2", 14).strides == (14, 14, 14, 14)
    for stride in (8, 16, 32):
        with pytest.raises(ValueError, match=f"^output_stride: must be 14 with .* got {stride}$"):
            reading("vit_small_patch14_dinov2", stride)


def test_backbone_normalises_with_timm_statistics() -> None:
    """Mean and deviation come from timm and are saved with the weights."""
    image = torch.rand(1, 3, 64, 64)
    for name in ("tf_efficientnet_lite0", "resnet10", "vit_base_patch16_clip_224"):
        config = timm.get_pretrained_cfg(name)
        with torch.device("meta"):
            assert Backbone(name, output_stride=reading(name).strides[-1]).mean.shape == (3, 1, 1)
        if name.startswith("vit"):
            continue
        backbone = Backbone(name)
        mean, deviation = (torch.tensor(v)[:, None, None] for v in (config.mean, config.std))
        assert torch.equal(backbone.normalise(image), (image - mean) / deviation)
        assert torch.equal(backbone.state_dict()["mean"], mean)
    other = Backbone("resnet10")
    other.load_state_dict({**other.state_dict(), "mean": torch.full((3, 1, 1), 0.25)})
    assert torch.equal(other.normalise(image), (image - 0.25) / other.deviation)


@pytest.mark.parametrize("name", ["resnet10", "tf_efficientnet_lite0", "test_vit"])
@pytest.mark.parametrize("freeze", ["none", "stem", "all"])
def test_frozen_layers_keep_their_weights(name: str, freeze: str) -> None:
    backbone = Backbone(name, output_stride=own_stride(name))
    backbone.freeze(freeze)
    network = build_baseline("cam", backbone, 2).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0)
    output, parts = network.losses(torch.rand(2, 3, 64, 64), torch.tensor([[1.0, 0], [0, 1]]))
    sum(parts.values()).backward()
    optimizer.step()
    after = backbone.state_dict()
    changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert network.head.weight.grad.any()
    assert output.features["stage4"].requires_grad == (freeze != "all")
    stem = {key for key in before if key.startswith(("network.conv1", "network.bn1", "network.conv_stem"))}
    stem |= {key for key in before if key.startswith(("network.patch_embed", "network.pos_embed"))}
    assert stem
    match freeze:
        case "none":
            assert changed & stem
        case "stem":
            assert changed and not changed & stem
        case "all":
            assert not changed


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "convnext_atto", "test_vit"])
def test_inference_in_bfloat16_is_close_to_float32(name: str) -> None:
    """Most layers have bfloat16 weights; stage 1, if the network has one, has float32 weights."""
    torch.manual_seed(0)
    stride = own_stride(name)
    network = SEGMENTER.build(Architecture("segmenter", name, stride, "frozen", "deeplabv2", ("a", "b")))
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = network.eval()(image)
    cpu = torch.device("cpu")
    found = Inference(network, cpu, torch.bfloat16)(image)
    kinds = {p.dtype for m in network.backbone.modules() if isinstance(m, nn.Conv2d) for p in m.parameters()}
    assert torch.bfloat16 in kinds
    assert (torch.float32 in kinds) == (name != "test_vit")
    assert 0 < (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_refuse_unfit_rejects_invalid_stride_and_network() -> None:
    from plda.errors import InputError

    def params(name: str, stride: int) -> dict:
        network = {"name": name}
        return {
            "download_backbone": {"cams": network, "segmenter": {"name": "resnet10"}},
            "train_cam": {"output_stride": stride},
            "train_segmenter": {"output_stride": 16},
            "relabel_masks": {"enabled": True, "output_stride": 16},
        }

    refuse_unfit(params("vit_tiny_patch16_224", 16))
    with pytest.raises(InputError, match=r"^params: train_cam\.output_stride: must be 16 with .*, got 8$"):
        refuse_unfit(params("vit_tiny_patch16_224", 8))
    with pytest.raises(
        InputError, match=r"^params: download_backbone\.cams\.name: levit_128: has no feature maps"
    ):
        refuse_unfit(params("levit_128", 16))
