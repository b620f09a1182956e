"""Published weights from the Hugging Face hub: download, checks, cache and errors."""

import hashlib
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import ROOT, Refusal, run_stage, write_params
from hub_server import COMMIT, Hub, serving
from huggingface_hub import close_session, constants, file_download
from torch import Tensor

from plda.models.saved import load
from plda.vision import timm

NAME, REPOSITORY = "test_resnet.r160_in1k", "timm/test_resnet.r160_in1k"
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
OUTPUTS = {"cam_backbone": "cams.pt", "segmenter_backbone": "other.pt", "backbone_origins": "origins.json"}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class User:
    """A user with an empty cache who requests published weights in `folder`.

    Attributes:
        released: weights on the hub.
        waits: seconds that huggingface_hub would sleep; the tests do not sleep.
    """

    def __init__(self, folder: Path, refused: Refusal, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._refused, self._patch = folder, refused, patch
        self.released: dict[str, Tensor] = timm.create_model(NAME).state_dict()
        self.waits: list[float] = []
        patch.setattr("time.sleep", self.waits.append)
        self.set(HF_HUB_CACHE=str(folder / "cache"), HF_TOKEN_PATH=str(folder / "token"))

    def set(self, **values: object) -> None:
        """Set constants of huggingface_hub, which has already read its environment variables."""
        for name, value in values.items():
            self._patch.setattr(constants, name, value)

    def use(self, url: str) -> None:
        """Set HF_ENDPOINT."""
        path = "/{repo_id}/resolve/{revision}/{filename}"
        self.set(ENDPOINT=url, HUGGINGFACE_CO_URL_TEMPLATE=url + path)

    def fetch(self, **weights: str) -> int:
        paths = {flag: self.folder / name for flag, name in OUTPUTS.items()}
        return run_stage("download_backbone", self._params(weights), **paths)

    def fetch_anew(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `fetch` in a new process, which reads huggingface_hub's environment variables."""
        flags = [t for flag, name in OUTPUTS.items() for t in (f"--{flag.replace('_', '-')}", name)]
        return subprocess.run(
            [sys.executable, "-m", "plda", "download_backbone", "--params", self._params({}), *flags],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
        )

    def _params(self, weights: dict[str, str]) -> Path:
        weights = {"name": NAME, "weights": "pretrained", **weights}
        changes = {f"download_backbone__cams__{key}": value for key, value in weights.items()}
        return write_params(self.folder / "params.yaml", **changes)

    def refusal(self, **weights: str) -> str:
        """Run `fetch`, which must fail; return the message after the params field of the network."""
        message = self._refused(self.fetch, **weights)
        _, found, said = message.partition("plda download_backbone: error: params: download_backbone.cams.")
        assert found, message
        assert "Traceback" not in message
        assert not (self.folder / "cams.pt").exists()
        return said.strip()

    def kept(self) -> dict[str, str]:
        """Check that the saved weights are the released ones without the classifier; return their origin."""
        kept = load(self.folder / "cams.pt")
        (self.folder / "cams.pt").unlink()
        assert kept["name"] == NAME
        assert kept["weights"].keys() == self.released.keys() - {"fc.weight", "fc.bias"}
        assert all(torch.equal(weight, self.released[key]) for key, weight in kept["weights"].items())
        origin: dict[str, str] = kept["origin"]
        return origin

    def cached(self) -> list[str]:
        """Return the names of content files in the cache, complete or not, without links."""
        files = (p for p in (self.folder / "cache").rglob("*") if p.is_file() and not p.is_symlink())
        return [p.name for p in files if p.stat().st_size > 100_000]


@pytest.fixture
def user(tmp_path: Path, refused: Refusal, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    close_session()
    yield User(tmp_path, refused, monkeypatch)
    close_session()


@pytest.fixture
def hub(user: User) -> Iterator[Hub]:
    running = Hub(REPOSITORY, {SAFE: safetensors.torch.save(user.released)})
    with serving(running):
        user.use(running.url)
        yield running


def test_download_keeps_weights_and_origin(hub: Hub, user: User) -> None:
    assert user.fetch() == 0
    assert hub.seen.count(f"GET {SAFE}") == 1
    origin = user.kept()
    assert origin == {
        "from": "timm's release",
        "repository": REPOSITORY,
        "revision": COMMIT,
        "licence": "apache-2.0",
        "sha256": digest(hub.files[SAFE]),
        "layout": "timm",
    }
    assert json.loads((user.folder / "origins.json").read_text())["cams"] == {"name": NAME, **origin}


def test_cached_weights_are_not_downloaded_again(hub: Hub, user: User) -> None:
    assert user.fetch() == 0
    hub.seen.clear()
    assert user.fetch() == 0
    assert hub.seen == [f"HEAD {SAFE}"]
    for hub.error in ((503, ""), (401, "RepoNotFound")):
        assert user.fetch() == 0
    user.use("http://127.0.0.1:9")
    assert user.fetch() == 0
    user.kept()
    assert not user.waits


def test_offline_mode_uses_cache(hub: Hub, user: User) -> None:
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(user.folder / "home")}
    assert user.fetch_anew(**variables, HF_HUB_OFFLINE="0").returncode == 0
    user.kept()
    hub.seen.clear()
    assert user.fetch_anew(**variables, HF_HUB_OFFLINE="1").returncode == 0
    user.kept()
    user.set(HF_HUB_OFFLINE=True)
    assert "HF_HUB_OFFLINE is set, and the cache does not have the file" in user.refusal()
    assert not hub.seen


@pytest.mark.parametrize("shared", [False, True])
def test_damaged_download_is_refused_and_deleted(
    hub: Hub, user: User, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(path: Path) -> None:
        path.write_bytes(hub.files[SAFE])

    if shared:  # in the cache shared by all repositories, as files from Xet; Xet's protocol is replaced
        hub.xet = "7" * 64
        monkeypatch.setattr(file_download, "is_xet_available", lambda: True)
        monkeypatch.setattr(file_download, "xet_get", lambda incomplete_path, **_: written(incomplete_path))
    good = hub.files[SAFE]
    hub.etag = digest(good)
    hub.files[SAFE] = good[:-1] + bytes([good[-1] ^ 1])
    line = user.refusal()
    assert f"{SAFE} has SHA-256 {digest(hub.files[SAFE])}, {hub.etag} was expected" in line
    assert "is deleted; run again" in line
    assert not user.cached()
    hub.files[SAFE] = good
    assert user.fetch() == 0
    assert user.kept()["sha256"] == hub.etag
    assert user.cached() == [hub.xet or hub.etag]


def test_checksum_in_params_is_checked(hub: Hub, user: User) -> None:
    own = digest(hub.files[SAFE])
    assert user.fetch(sha256=own) == 0
    user.kept()
    line = user.refusal(sha256="0" * 64)
    assert line.startswith("sha256: ")
    assert own in line
    assert "0" * 64 in line


def test_gated_weights_require_token(hub: Hub, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_right"
    for token in ("", "hf_wrong"):
        monkeypatch.setenv("HF_TOKEN", token)
        line = user.refusal()
        assert line.startswith(f"weights: pretrained: {REPOSITORY} cannot be downloaded: its owners ask you")
        assert "accept their terms: do so on its page, and set HF_TOKEN" in line
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert user.fetch() == 0
    user.kept()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "RepoNotFound", "has no such repository, or shows it only to authorised users (HF_TOKEN)"),
        (404, "RepoNotFound", "has no such repository"),
        (404, "RevisionNotFound", "has no such revision"),
        (403, "", "403 Forbidden"),
        (503, "", "503 Service Unavailable"),
        (200, "", "does not seem to be served by a Hugging Face Hub endpoint"),
    ],
)
def test_hub_errors_are_reported(hub: Hub, user: User, status: int, code: str, said: str) -> None:
    hub.error = status, code
    line = user.refusal()
    assert line.startswith(f"weights: pretrained: {REPOSITORY} cannot be downloaded: ")
    assert said in line
    assert "\n" not in line
    assert sum(user.waits) < 30


def test_repository_without_weights_is_reported(hub: Hub, user: User) -> None:
    hub.files = {"README.md": b""}
    assert f"the repository has no {SAFE} or {PICKLED}. Or set this field to the path" in user.refusal()
    assert hub.seen == [f"HEAD {SAFE}", f"HEAD {PICKLED}"]


def test_download_resumes_after_connection_cut(hub: Hub, user: User) -> None:
    user.set(DOWNLOAD_CHUNK_SIZE=100_000)  # received data is saved in pieces of this size
    hub.sent = [len(hub.files[SAFE]) // 2]
    assert user.fetch() == 0
    user.kept()
    first, second = (seen for seen in hub.seen if seen.startswith("GET"))
    assert first == f"GET {SAFE}"
    assert re.fullmatch(rf"GET {SAFE} bytes=[1-9]\d*-", second)


@pytest.mark.parametrize("reset", [False, True])
def test_download_gives_up_after_repeated_cuts(hub: Hub, user: User, reset: bool) -> None:
    hub.sent, hub.reset = [len(hub.files[SAFE]) // 2] * 20, reset
    assert user.refusal().startswith(f"weights: pretrained: {REPOSITORY} cannot be downloaded: ")
    assert sum(seen.startswith("GET") for seen in hub.seen) <= 6
    assert sum(user.waits) < 30
    assert not user.cached()
    hub.sent, hub.reset = [], False
    assert user.fetch() == 0
    user.kept()


def test_unreachable_server_is_named(user: User) -> None:
    user.use("http://127.0.0.1:9/mirror")
    said = "http://127.0.0.1:9 cannot be reached, and the cache does not have the file ("
    assert user.refusal().startswith(f"weights: pretrained: {REPOSITORY} cannot be downloaded: {said}")
    assert sum(user.waits) < 30
    for url in ("127.0.0.1", "http://127.0.0.1:port"):
        user.use(url)
        assert user.refusal().startswith(f"weights: pretrained: {REPOSITORY} cannot be downloaded: ")


def test_silent_server_times_out(user: User) -> None:
    user.set(HF_HUB_ETAG_TIMEOUT=0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        user.use(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "cannot be reached, and the cache does not have the file (timed out)" in user.refusal()
    assert sum(user.waits) < 30


def test_torch_file_is_read_if_no_safetensors_exist(hub: Hub, user: User) -> None:
    torch.save(user.released, user.folder / "released.pth")
    hub.files = {PICKLED: (user.folder / "released.pth").read_bytes()}
    assert user.fetch() == 0
    assert user.kept()["sha256"] == digest(hub.files[PICKLED])
    user.set(HF_HUB_OFFLINE=True)
    assert user.fetch() == 0
    user.kept()


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_file_without_matching_weights_is_refused(hub: Hub, user: User) -> None:
    ran = user.folder / "ran"
    for name, content, said in (
        (PICKLED, pickle.dumps(Evil(ran), 2), "could run code"),
        (SAFE, hub.files[SAFE][:-100], "incomplete metadata"),
        (SAFE, safetensors.torch.save({"fc.bias": torch.zeros(1)}), "Missing key(s)"),
    ):
        shutil.rmtree(user.folder / "cache", ignore_errors=True)
        hub.files = {name: content}
        message = user.refusal()
        assert message.startswith(f"weights: {REPOSITORY}/{name} does not hold weights of {NAME}: ")
        assert said in message
        assert not ran.exists()
