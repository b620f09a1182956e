"""Initial weights: random, from a loopback server or a local file; checksums. The hub: test_hub.py."""

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from conftest import Refusal, run_stage, write_params

from plda.models.saved import load
from plda.vision import timm


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    torch.manual_seed(3)
    torch.save(timm.create_model("resnet10").state_dict(), folder / "resnet10.pth")
    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", folder
    http.shutdown()


def fetch(tmp_path: Path, **weights: str) -> int:
    changes = {f"download_backbone__cams__{key}": value for key, value in weights.items()}
    return run_stage(
        "download_backbone",
        write_params(tmp_path / "params.yaml", **changes),
        cam_backbone=tmp_path / "out" / "cams.pt",
        segmenter_backbone=tmp_path / "out" / "segmenter.pt",
        backbone_origins=tmp_path / "out" / "origins.json",
    )


def test_download_and_local_file_give_same_weights(server: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = server
    file = folder / "resnet10.pth"
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    for where in (f"{url}/resnet10.pth", str(file)):
        assert fetch(tmp_path, weights=where, sha256=checksum) == 0
        kept = load(tmp_path / "out" / "cams.pt")
        assert kept["name"] == "resnet10"
        expected = torch.load(file, weights_only=True)
        assert kept["weights"].keys() == expected.keys() - {"fc.weight", "fc.bias"}
        assert all(torch.equal(w, expected[k]) for k, w in kept["weights"].items())
        assert kept["origin"]["sha256"] == checksum
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cams.pt", "origins.json", "segmenter.pt"]


def test_download_backbone_rejects_invalid_weights(
    server: tuple[str, Path], tmp_path: Path, refused: Refusal
) -> None:
    url, folder = server
    (folder / "cut.pth").write_bytes((folder / "resnet10.pth").read_bytes()[:5000])
    torch.save(timm.create_model("mobilenetv2_100").state_dict(), folder / "other.pth")
    torch.save([1, 2], folder / "list.pth")
    field = "download_backbone.cams"
    for weights, words in (
        ({"weights": f"{url}/gone.pth"}, [f"{field}.weights", "gone.pth", "404", "set its path here"]),
        ({"weights": "http://127.0.0.1:9/x.pth"}, [f"{field}.weights", "cannot be downloaded"]),
        ({"weights": "no/such.pth"}, [f"{field}.weights", "no/such.pth: no such file"]),
        ({"weights": f"{url}/resnet10.pth", "sha256": "0" * 64}, [f"{field}.sha256", "0" * 64]),
        ({"weights": str(folder / "cut.pth")}, ["cut.pth", "cannot be read"]),
        ({"weights": f"{url}/other.pth"}, [f"{field}.weights", "does not hold weights of resnet10"]),
        ({"weights": f"{url}/list.pth"}, [f"{field}.weights", "does not hold weights of resnet10"]),
        ({"weights": "imagenet"}, [f"{field}.weights", "no such file", "pretrained"]),
        ({"name": "resnet34d_x"}, ["must be a network of timm, such as"]),
        ({"name": "mobilenet_v2"}, [f"{field}.name: must be a network of timm, such as mobilenetv2_100"]),
        ({"name": "resnet18.nobody"}, [f"{field}.name: resnet18.nobody: timm has no weights"]),
        ({"name": "levit_128"}, [f"{field}.name: levit_128: has no feature maps for images of any size"]),
    ):
        message = refused(fetch, tmp_path, **weights)
        assert all(word in message for word in words), (weights, message)
        assert not (tmp_path / "out" / "cams.pt").exists()


def test_random_weights_depend_on_seed(tmp_path: Path) -> None:
    kept = []
    for seed in (0, 0, 1):
        params = write_params(tmp_path / "params.yaml", seed=seed)
        paths = {
            "cam_backbone": tmp_path / "1.pt",
            "segmenter_backbone": tmp_path / "2.pt",
            "backbone_origins": tmp_path / "origins.json",
        }
        assert run_stage("download_backbone", params, **paths) == 0
        kept.append((tmp_path / "1.pt").read_bytes())
    assert kept[0] == kept[1] != kept[2]
