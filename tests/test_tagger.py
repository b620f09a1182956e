"""The classifier inside a segmentation network."""

from pathlib import Path

import pytest
import torch
from conftest import Refusal, run_stage, write_params
from test_training import trainer

from plda.data.data_set import DataSet
from plda.errors import InputError
from plda.models.backbones import Backbone
from plda.models.baselines import KINDS, build_baseline
from plda.models.saved import Architecture, load, load_network, save, save_network
from plda.models.segmenters import SEGMENTER
from plda.models.tagger import TAGGER, read_tagger, weigh_classes

CLASSES = ("background", "cat", "dog", "cow")


def architecture(kind: str, head: str, **more) -> Architecture:
    return Architecture(kind, "resnet10", 16, "trained", head, CLASSES, **more)


def test_weigh_classes_follows_its_formula() -> None:
    torch.manual_seed(0)
    scores, logits = torch.randn(2, 4, 3, 5).double(), 3 * torch.randn(2, 3).double()
    p, q = scores.softmax(dim=1), logits.sigmoid()[..., None, None]
    objects = p[:, 1:].sum(dim=1, keepdim=True)
    expected = objects * p[:, 1:] * q / (p[:, 1:] * q).sum(dim=1, keepdim=True)
    found = weigh_classes(scores, logits).softmax(dim=1)
    assert torch.allclose(found[:, 1:], expected)
    assert torch.allclose(found[:, 0], p[:, 0])


def test_weigh_classes_survives_certain_logits() -> None:
    found = weigh_classes(torch.zeros(1, 3, 1, 1), torch.tensor([[200.0, -200.0]])).softmax(dim=1)
    assert torch.allclose(found.flatten(), torch.tensor([1 / 3, 2 / 3, 0.0]))


@pytest.mark.parametrize("baseline", KINDS)
def test_tagger_has_logits_of_baseline(baseline: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_baseline(baseline, Backbone("resnet10", output_stride=16), 3).eval()
    save_network(tmp_path / "cam.pt", architecture("cam", baseline), network.state_dict())
    described, weights = read_tagger(tmp_path / "cam.pt", CLASSES)
    tagger = TAGGER.build(described).eval()
    tagger.load_state_dict(weights)
    image = torch.rand(2, 3, 64, 80)
    with torch.no_grad():
        assert torch.allclose(tagger(image), network(image).logits, atol=1e-5)


def test_read_tagger_refuses_other_files(tmp_path: Path) -> None:
    network = SEGMENTER.build(architecture("segmenter", "lraspp"))
    save_network(tmp_path / "n.pt", architecture("segmenter", "lraspp"), network.state_dict())
    with pytest.raises(InputError, match=r"architecture.kind: must be 'cam', got 'segmenter'"):
        read_tagger(tmp_path / "n.pt", CLASSES)


def test_train_segmenter_adds_classifier(drawn: Path, tmp_path: Path) -> None:
    params, paths = trainer("train_segmenter", drawn, tmp_path)
    assert run_stage("train_segmenter", params, **paths) == 0
    weights = load(paths["segmenter"])["weights"]
    for name, value in load(paths["cam_network"])["weights"].items():
        assert torch.equal(weights[f"tagger.{name}"], value), name
    load_network(paths["segmenter"], SEGMENTER, DataSet(paths["data_set"]).classes)
    write_params(params, train_segmenter__tagger="none")
    assert run_stage("train_segmenter", params, **paths) == 0
    assert not any(name.startswith("tagger") for name in load(paths["segmenter"])["weights"])


def test_bad_classifier_is_refused_before_training(drawn: Path, tmp_path: Path, refused: Refusal) -> None:
    params, paths = trainer("train_segmenter", drawn, tmp_path)
    saved = load(paths["cam_network"])
    del saved["weights"]["head.weight"]
    save(paths["cam_network"], saved)
    message = refused(run_stage, "train_segmenter", params, **paths)
    assert "cam.pt: is not the network of a baseline: it has no head.weight" in message
    assert "epoch" not in message and not paths["segmenter"].exists()


def test_network_with_tagger_is_read_as_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = architecture("segmenter", "lraspp", long_side=64, tagger=architecture("cam", "cam"))
    network = SEGMENTER.build(whole).eval()
    save_network(tmp_path / "n.pt", whole, network.state_dict())
    again = load_network(tmp_path / "n.pt", SEGMENTER, CLASSES)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(image), network(image))
        network.tagger = None
        assert not torch.equal(again(image), network(image))
        assert torch.allclose(again(image).softmax(1)[:, 0], network(image).softmax(1)[:, 0], atol=1e-2)
