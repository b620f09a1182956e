"""A file of published weights from the Hugging Face hub, where timm keeps them.

huggingface_hub does the work, with its cache and its variables: HF_HOME, HF_ENDPOINT for a mirror,
HF_HUB_OFFLINE, HF_TOKEN. What it does not do is compare a file with the checksum that its server names.
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
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # which its types do not say

from plda.errors import InputError
from plda.files import sha256

NAMES = ("model.safetensors", "pytorch_model.bin")  # of timm's weights, the safe one first
FAILURES = (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError, ValueError)  # of huggingface_hub


@dataclass(frozen=True)
class HubFile:
    """A file in the cache.

    Attributes:
        path: where it lies.
        repository: that it is of.
        revision: the commit.
        name: in the repository.
    """

    path: Path
    repository: str
    revision: str
    name: str


def fetch_from_hub(config: Any, field: str) -> HubFile:
    """Return the file of a network's published weights, downloaded unless the cache has it.

    Args:
        config: timm's, of a network with weights on the hub.
        field: where the network stands in the params, for messages.

    Raises:
        InputError: it cannot be had, or is not what the server says that it is.
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
    raise InputError(_said(field, repository, f"it holds no {' or '.join(names)}"))


def is_cached(config: Any) -> bool:
    """Return whether the cache has a network's weights."""
    if not config.hf_hub_id:
        return False
    repository, names, revision = _place(config)
    return any(_is_cached(repository, name, revision) for name in names)


def _place(config: Any) -> tuple[str, tuple[str, ...], str | None]:
    """Return the repository of a network's weights, the names that the file may have, and the revision."""
    repository, _, revision = config.hf_hub_id.partition("@")
    return repository, (config.hf_hub_filename,) if config.hf_hub_filename else NAMES, revision or None


def _is_cached(repository: str, name: str, revision: str | None) -> bool:
    return isinstance(try_to_load_from_cache(repository, name, revision=revision), str)


def _fetched(repository: str, name: str, revision: str | None) -> Path:
    """Return where the cache has a file, downloaded unless it is there.

    What is not there is asked for once more beforehand: hf_hub_download alone waits more than six minutes for
    a server that does not answer, and calls all that a server may say against it a bad connection.
    """
    if not _is_cached(repository, name, revision):
        url = hf_hub_url(repository, name, revision=revision)
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        get_hf_file_metadata(url, timeout=timeout, library_name="plda", retry_on_errors=True)
    return Path(hf_hub_download(repository, name, revision=revision, library_name="plda"))


def _check(path: Path) -> None:
    """Compare the SHA-256 of a cached file with the one that the server gave.

    The cache has the content of a large file under that name, and a link to it, `path`. The content may be a
    link itself, to what repositories share, where it has another name. Where there are no links, there is
    nothing to compare with.

    Raises:
        ValueError: it is another one.
    """
    content = path.parent / path.readlink() if path.is_symlink() else path
    if not re.fullmatch("[0-9a-f]{64}", content.name) or content.name == (digest := sha256(path)):
        return
    reason = f"{path.name} has SHA-256 {digest}, {content.name} was expected"
    try:
        for file in (path.resolve(), content, path):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"{reason}: it is damaged, delete {path.resolve()}") from error
    raise ValueError(f"{reason}: it was damaged and is deleted, run again")


def _reason(error: Exception) -> str:
    """Return in one line why a file cannot be had."""
    if isinstance(error, GatedRepoError):
        return "its owners ask you to accept their terms: do so on its page, and set HF_TOKEN"
    if isinstance(error, RepositoryNotFoundError):
        return f"{constants.ENDPOINT} has no such repository, or shows it only to users it knows (HF_TOKEN)"
    if isinstance(error, RevisionNotFoundError):
        return f"{constants.ENDPOINT} has no such revision of it"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and the cache does not have it: download it once without"
    if isinstance(error, httpx.ConnectError | httpx.TimeoutException):
        url = error.request.url
        server = f"{url.scheme}://{url.netloc.decode()}"
        return f"{server} cannot be reached, and the cache does not have it ({_first_line(error)})"
    if isinstance(error, LocalEntryNotFoundError):
        return _first_line(error.__cause__ or error)
    return _first_line(error)


def _said(field: str, repository: str, reason: str) -> str:
    return (
        f"params: {field}.weights: pretrained: {repository} cannot be downloaded: {reason}. "
        "Or give the path of a file of the weights here"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0].rstrip(".")
