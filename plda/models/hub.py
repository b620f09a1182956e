"""Download published weights from the Hugging Face hub, where timm stores them.

huggingface_hub does the work, with its cache and its variables: HF_HOME, HF_ENDPOINT for a mirror,
HF_HUB_OFFLINE, HF_TOKEN. It does not compare a file with the server's checksum; this module does.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # missing in its types

from plda.errors import InputError
from plda.files import sha256

NAMES = ("model.safetensors", "pytorch_model.bin")  # of timm's weight files, the safe format first
FAILURES = (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, ValueError)  # errors of huggingface_hub


@dataclass(frozen=True)
class HubFile:
    """A file in the cache.

    Attributes:
        path: path in the cache.
        repository: name of its repository on the hub.
        revision: commit of the repository.
        name: name in the repository.
    """

    path: Path
    repository: str
    revision: str
    name: str


def fetch_from_hub(config: Any, field: str) -> HubFile:
    """Return the file of a network's published weights; download it if the cache does not have it.

    Args:
        config: timm's configuration of a network with weights on the hub.
        field: the field of the params that names the network, for messages.

    Raises:
        InputError: the file is not available, or its checksum differs from the server's.
    """
    repository, names, revision = _place(config)
    for name in sorted(names, key=lambda name: not _is_cached(repository, name, revision)):
        try:
            path = _fetched(repository, name, revision)
            _check(path)
            return HubFile(path, repository, path.parent.name, name)
        except RemoteEntryNotFoundError:
            continue
        except FAILURES as error:
            raise InputError(_said(field, repository, _reason(error))) from error
    raise InputError(_said(field, repository, f"the repository has no {' or '.join(names)}"))


def is_cached(config: Any) -> bool:
    """Return whether the cache has a network's weights."""
    if not config.hf_hub_id:
        return False
    repository, names, revision = _place(config)
    return any(_is_cached(repository, name, revision) for name in names)


def _place(config: Any) -> tuple[str, tuple[str, ...], str | None]:
    """Return the repository of a network's weights, the possible file names, and the revision."""
    repository, _, revision = config.hf_hub_id.partition("@")
    return repository, (config.hf_hub_filename,) if config.hf_hub_filename else NAMES, revision or None


def _is_cached(repository: str, name: str, revision: str | None) -> bool:
    return isinstance(try_to_load_from_cache(repository, name, revision=revision), str)


def _fetched(repository: str, name: str, revision: str | None) -> Path:
    """Return the path of a file in the cache; download the file if it is missing.

    Before a download, this function requests the file's metadata: hf_hub_download alone waits more than six
    minutes for a server that does not answer, and reports every error of a server as a bad connection.
    """
    if not _is_cached(repository, name, revision):
        url = hf_hub_url(repository, name, revision=revision)
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        get_hf_file_metadata(url, timeout=timeout, library_name="plda", retry_on_errors=True)
    return Path(hf_hub_download(repository, name, revision=revision, library_name="plda"))


def _check(path: Path) -> None:
    """Compare the SHA-256 of a cached file with the one that the server gave.

    The cache stores the content of a large file under its SHA-256, and a link to it, `path`. The content may
    be a link to a file with another name that several repositories share. Without links, there is no checksum
    to compare with.

    Raises:
        ValueError: the checksums differ.
    """
    content = path.parent / path.readlink() if path.is_symlink() else path
    if not re.fullmatch("[0-9a-f]{64}", content.name) or content.name == (digest := sha256(path)):
        return
    reason = f"{path.name} has SHA-256 {digest}, {content.name} was expected"
    try:
        for file in (path.resolve(), content, path):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"{reason}: the file is damaged; delete {path.resolve()}") from error
    raise ValueError(f"{reason}: the file was damaged and is deleted; run again")


def _reason(error: Exception) -> str:
    """Return in one line why a file cannot be downloaded."""
    if isinstance(error, GatedRepoError):
        return "its owners ask you to accept their terms: do so on its page, and set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return f"{constants.ENDPOINT} has no such repository, or shows it only to authorised users (HF_TOKEN)"
    if isinstance(error, RevisionNotFoundError):
        return f"{constants.ENDPOINT} has no such revision of the repository"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and the cache does not have the file: run once without HF_HUB_OFFLINE"
    if isinstance(error, httpx.ConnectError | httpx.TimeoutException):
        url = error.request.url
        server = f"{url.scheme}://{url.netloc.decode()}"
        return f"{server} cannot be reached, and the cache does not have the file ({_first_line(error)})"
    if isinstance(error, LocalEntryNotFoundError):
        return _first_line(error.__cause__ or error)
    return _first_line(error)


def _said(field: str, repository: str, reason: str) -> str:
    return (
        f"params: {field}.weights: pretrained: {repository} cannot be downloaded: {reason}. "
        "Or set this field to the path of a weights file"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0].rstrip(".")
