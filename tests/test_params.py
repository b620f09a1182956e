"""params.yaml and similar files: parsing of numbers and text, and validation before any work."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import BASELINES, ROOT, Photos, build, run_stage, small_params, write_params
from dvc.utils.serialize import loads_yaml
from test_training import trainer

from plda.adaptation.learner import PUBLISHED, PldaLearner
from plda.errors import InputError
from plda.models.baselines import TagLearner
from plda.models.saved import Architecture
from plda.models.segmenters import MaskLearner
from plda.params import Params, check, read_params
from plda.yaml_file import read_yaml, yaml_text
from workflow.ablations import read_ablations

VALUES = (
    "1e-05", "5e-4", "1E5", ".5e-3", "1e3", "1.", "+1", "-2", "0x1F", "010", "0o10", "1_000",
    "yes", "no", "on", "off", "true", "null", "~", "1:30", "2020-01-01", "",
    "'1e-05'", ".nan", "-.inf", "[1e-2]",
)  # fmt: skip

BOMB = "a0: &a0 [1, 2]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 15))


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("value", VALUES)
def test_read_yaml_matches_dvc(tmp_path: Path, value: str) -> None:
    ours, theirs = read_yaml(written(tmp_path, f"a: {value}\n"))["a"], loads_yaml(f"a: {value}\n")["a"]
    assert type(ours) is type(theirs)
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-05", 1e-5), ("5e-4", 5e-4), (".5e-3", 5e-4), ("1E-3", 1e-3), ("1", 1.0)]
)
def test_read_params_accepts_dvc_number_formats(tmp_path: Path, text: str, value: float) -> None:
    path = write_params(tmp_path / "params.yaml", train_cam__lr="HERE")
    path.write_text(path.read_text().replace("HERE", text))
    assert read_params(path).train_cam.lr == value


@pytest.mark.parametrize(
    "values", [{"a": v} for v in ("1e5", "0o10", "yes", "ä\nb", "", "2020-01-01", "<<", 1e-5)]
)
def test_yaml_text_round_trips(tmp_path: Path, values: dict[str, Any]) -> None:
    assert read_yaml(written(tmp_path, yaml_text(values))) == values


def test_yaml_text_keeps_key_order(tmp_path: Path) -> None:
    params = small_params()
    assert list(read_yaml(written(tmp_path, yaml_text(params)))) == list(params)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_read_yaml_accepts_utf_8_with_and_without_bom(tmp_path: Path, mark: bytes) -> None:
    assert read_yaml(written(tmp_path, mark + "# für\r\na: Käfer\r\n".encode())) == {"a": "Käfer"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  'c': 3\n", ["line 5", "b.c", "duplicate", "line 3"]),
        ("a: [{b: 1,\n b: 2}]", ["line 2", "a.b", "duplicate", "line 1"]),
        ("a: &x [*x]\n", ["line 1", "a.: holds too many values, or itself"]),
        (BOMB, ["line 1", "holds too many values"]),
        ("<<: {a: 1}\n", ["line 1", "<<"]),
        ("a: !!python/object:os.system x\n", ["line 1", "python/object"]),
        ("a: !x 1\n", ["line 1", "!x"]),
        ("1: 2\n", ["line 1", "1", "quotes"]),
        ("null: 2\n", ["line 1", "null", "quotes"]),
        ("? [1]\n: 2\n", ["line 1"]),
        ("%YAML 1.1\n---\na: yes\n", ["YAML 1.2"]),
        ("a: 1\n---\nb: 1\n", ["line 2", "document"]),
        ("a: 1\n\tb: 2\n", ["line 2", "\\t"]),
        ("a: 'x\n", ["not YAML"]),
        ('a: "\\0"\n', ["line 1", "U+0000"]),
        ('a: "\\ud800"\n', ["line 1", "U+D800"]),
        (b"a: \0\n", ["NUL"]),
        (b"a: 1\nb: f\xfcr\n", ["line 2", "UTF-8", "0xFC"]),
        ("a: 1".encode("utf-16"), ["UTF-16"]),
        ("a: 1".encode("utf-16-le"), ["UTF-16"]),
        ("a: " + "9" * 5000, ["digits"]),
        ("a: 2020-13-45", ["month"]),
        ("[" * 100_000, ["nested"]),
        ("- " * 100_000, ["nested"]),
        ("{a: " * 30 + "}" * 30, ["nested"]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_read_yaml_rejects_invalid_content(tmp_path: Path, content: str | bytes, words: list[str]) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError) as error:
        read_yaml(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_read_ablations_rejects_duplicate_key(tmp_path: Path) -> None:
    text = (ROOT / "ablations.yaml").read_text()
    path = written(tmp_path, text.replace("  cam: {}", "  cam: {}\n  cam: {}"))
    with pytest.raises(InputError, match=r"runs\.cam: duplicate key"):
        read_ablations(path)


@pytest.mark.parametrize("content", ["", "# nothing\n", "[1]", "text", "5", "null"])
def test_read_params_rejects_file_without_sections(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="must hold keys with values"):
        read_params(written(tmp_path, content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_cam__lr": float("nan")}, "train_cam.lr: input should be a finite number"),
        ({"train_cam__lr": float("inf")}, "train_cam.lr: input should be a finite number"),
        ({"make_masks__background_score": float("nan")}, "make_masks.background_score"),
        ({"infer_cams__scales": [1.0, float("inf")]}, "infer_cams.scales.1"),
        ({"infer_cams__scales": [1e6]}, "infer_cams.scales.0"),
        ({"train_cam__scale": [0.5, 1e9]}, "train_cam.scale.1"),
        ({"train_cam__crop": 10**6}, "train_cam.crop"),
        ({"train_cam__epochs": 10**12}, "train_cam.epochs"),
        ({"compute__workers": 10**6}, "compute.workers"),
        ({"seed": 2**64}, "seed"),
        ({"compute__device": "mps", "compute__devices": 2}, "compute.devices: must be 1 with device mps"),
        ({"compute__devices": 3}, "train_cam.batch_size: must be a multiple of compute.devices"),
        ({"index_data__folder": 2024}, "index_data.folder: must be text; put it in quotes, got 2024"),
        ({"train_segmenter__head": "deeplabv3", "train_segmenter__batch_size": 1},
         "train_segmenter.batch_size: must be at least 2 with head deeplabv3"),
        ({"train_cam__output_stride": 32, "train_cam__crop": 32, "train_cam__batch_size": 1},
         "train_cam.batch_size: must be at least 2 with output_stride 32"),
    ],
    ids=str,
)  # fmt: skip
def test_params_reject_values_that_fail_later(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        check(Params, small_params(**change), "params.yaml")
    assert f"params.yaml: {words}" in str(error.value)


def test_params_reject_list_as_section() -> None:
    with pytest.raises(InputError, match=r"^params\.yaml: train_cam: must be a section"):
        check(Params, {**small_params(), "train_cam": [1]}, "params.yaml")


def test_params_errors_are_short() -> None:
    with pytest.raises(InputError) as error:
        check(Params, small_params(train_cam__lr="x" * 10**6), "params.yaml")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("stride", "norm", "crop"), [*itertools.product((16, 32), ("trained", "frozen"), (32, 33, 108, 109))]
)
def test_params_reject_batch_of_one_if_step_would_fail(stride: int, norm: str, crop: int) -> None:
    """A batch of one is refused exactly where a step fails; for lraspp in a few more cases."""
    tried = {"batch_size": 1, "output_stride": stride, "batch_norm": norm, "crop": crop}
    for stage, kind, heads in (
        ("train_cam", "cam", BASELINES),
        ("train_segmenter", "segmenter", ("deeplabv2", "deeplabv3", "lraspp")),
    ):
        for head in heads:
            name = {"cam": "baseline", "segmenter": "head"}[kind]
            changes = {f"{stage}__{key}": value for key, value in {**tried, name: head}.items()}
            refused = False
            try:
                check(Params, small_params(**changes), "params.yaml")
            except InputError:
                refused = True
            architecture = Architecture(kind, "resnet10", stride, norm, head, ("background", "cat"))
            works = step_works(architecture, crop)
            assert works or refused, (head, tried)
            assert not (works and refused) or head == "lraspp", (head, tried)


def step_works(architecture: Architecture, crop: int) -> bool:
    network: Any = build(architecture)
    batch = {
        "image": torch.rand(1, 3, crop, crop),
        "tags": torch.ones(1, 1),
        "mask": torch.zeros(1, crop, crop, dtype=torch.long),
    }
    learner = MaskLearner(network) if architecture.kind == "segmenter" else TagLearner(network)
    try:
        learner.train()(batch, 0.5)
    except ValueError:
        return False
    if architecture.kind == "cam":
        PldaLearner(network, 1, PUBLISHED).train()(batch, 0.5)
    return True


def test_train_segmenter_rejects_single_image(photos: Photos, drawn: Path, tmp_path: Path, refused) -> None:
    photos.rows = ["a.jpg,train,cat,", "c.jpg,val,dog,"]
    photos.write()
    out = tmp_path / "out"
    assert photos.index(out, train_segmenter__head="deeplabv3", train_segmenter__tagger="none") == 0
    message = refused(
        run_stage,
        "train_segmenter",
        tmp_path / "params.yaml",
        data_set=out / "data_set",
        training_masks=tmp_path,
        cam_network=drawn / "segmenter.pt",  # is not read
        segmenter_backbone=drawn / "segmenter.pt",
        checkpoints=tmp_path / "checkpoints",
        segmenter=tmp_path / "network.pt",
        segmenter_history=tmp_path / "history.csv",
        segmenter_machine=tmp_path / "machine.json",
    )
    assert "one training image is not enough with head deeplabv3" in message


def test_train_cam_reports_divergence(drawn: Path, tmp_path: Path, refused) -> None:
    rate = {"train_cam__lr": 1e9, "train_cam__optimizer": "sgd", "train_cam__batch_norm": "frozen"}
    params, paths = trainer("train_cam", drawn, tmp_path)
    message = refused(run_stage, "train_cam", write_params(params, **rate), **paths)
    assert "diverged; lower lr" in message
    assert not (tmp_path / "network.pt").exists()
