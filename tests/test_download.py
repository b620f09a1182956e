"""Downloads from a misbehaving loopback server, and damaged or malicious archives."""

import gzip
import hashlib
import io
import json
import os
import pickle
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import tarfile
import termios
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from server import CONTENT, Server

from plda.download.extract import NOTE, extract
from plda.download.fetch import Patience, Unavailable, fetch
from plda.download.packed import Packed
from plda.errors import InputError

OTHER = np.random.default_rng(1).bytes(1_000_000)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
QUICK = Patience(timeout=10, tries=3, pause=0.01)
LIMIT = 10_000_000


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "a.tar"


def beside(target: Path) -> set[str]:
    """Return the names of the files in the target's folder, without hidden ones."""
    return {p.name for p in target.parent.iterdir() if not p.name.startswith(".")}


def refusal(call: Callable[..., object], *args: object, **kwargs: object) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# Downloads


def test_fetch_downloads_file_once(server: Server, target: Path) -> None:
    url = server.add()
    for checksum in (SHA256, MD5, SHA256[:15], ""):
        assert fetch(target, [url], checksum=checksum, size=len(CONTENT)) == target
        assert target.read_bytes() == CONTENT
        assert beside(target) == {"a.tar"}
    assert server.ranges() == [None]


def test_fetch_caches_checksum_until_file_changes(server: Server, target: Path) -> None:
    url = server.add()
    fetch(target, [url], checksum=SHA256)
    before = target.stat()
    with target.open("r+b") as stream:  # a change that size and time do not show is not detected ...
        stream.write(b"changed")
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    fetch(target, [url], checksum=SHA256)
    assert target.read_bytes().startswith(b"changed")
    os.utime(target)  # ... any other change is
    fetch(target, [url], checksum=SHA256)
    assert target.read_bytes() == CONTENT
    fetch(target, [], checksum=MD5)  # a remembered checksum says nothing about another one
    assert refusal(fetch, target, [], checksum="md5:" + "0" * 32).count("0" * 32) == 2
    assert server.ranges() == [None, None]


def test_fetch_resumes_after_connection_cut(server: Server, target: Path) -> None:
    url = server.add(cut=[0.4, 0.5])
    assert fetch(target, [url], checksum=SHA256, patience=QUICK) == target
    assert target.read_bytes() == CONTENT
    assert server.seen == [
        ("/a.tar", None, None),
        ("/a.tar", "bytes=400000-", '"1"'),
        ("/a.tar", "bytes=700000-", '"1"'),
    ]
    assert beside(target) == {"a.tar"}


def test_fetch_resumes_part_of_earlier_call(server: Server, target: Path) -> None:
    url = server.add(cut=[0.4, 0.0, 0.0], modified="Thu, 01 Oct 2026 00:00:00 GMT", etag='W/"1"')
    message = refusal(fetch, target, [url], patience=QUICK)
    assert "connection lost after 400.0 kB of 1.0 MB (gave up after 3 tries)" in message
    assert beside(target) == {"a.tar.part", "a.tar.part.json"}
    fetch(target, [url], patience=QUICK)  # also without a checksum: the server states the version
    assert target.read_bytes() == CONTENT
    assert server.seen[-1] == ("/a.tar", "bytes=400000-", "Thu, 01 Oct 2026 00:00:00 GMT")
    assert beside(target) == {"a.tar"}


def test_fetch_restarts_without_checksum_and_version(server: Server, target: Path) -> None:
    url = server.add(cut=[0.4], etag=None)
    fetch(target, [url], patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert server.ranges() == [None, None]


def test_fetch_restarts_without_range_support(server: Server, target: Path) -> None:
    url = server.add(cut=[0.4], ranges=False)
    fetch(target, [url], checksum=SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=400000-"]


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("checked", [True, False])
def test_fetch_does_not_mix_file_versions(
    server: Server, target: Path, if_range: bool, checked: bool
) -> None:
    url = server.add(content=OTHER, cut=[0.4, 0.0, 0.0])
    checksum = SHA256 if checked else ""
    refusal(fetch, target, [url], checksum=checksum, patience=QUICK)
    assert target.with_name("a.tar.part").stat().st_size == 400_000
    server.add(etag='"2"', if_range=if_range)
    fetch(target, [url], checksum=checksum, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert server.ranges()[3:] == ["bytes=400000-"] + ([] if if_range else [None])


def test_fetch_detects_silent_change_by_checksum(server: Server, target: Path) -> None:
    url = server.add(content=OTHER, cut=[0.4, 0.0, 0.0], etag=None)
    refusal(fetch, target, [url], checksum=SHA256, patience=QUICK)
    server.add(etag=None)
    fetch(target, [url], checksum=SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert server.ranges()[3:] == ["bytes=400000-", None]  # the parts did not match: download the whole file


def test_fetch_restarts_if_part_is_longer_than_file(server: Server, target: Path) -> None:
    url = server.add(content=OTHER + OTHER, cut=[0.9, 0.0, 0.0], etag=None)
    refusal(fetch, target, [url], checksum=SHA256, patience=QUICK)
    server.add(etag=None)
    fetch(target, [url], checksum=SHA256, patience=QUICK)  # 416: range not satisfiable
    assert target.read_bytes() == CONTENT
    assert server.ranges()[3:] == ["bytes=1800000-", None]


def test_fetch_only_checks_complete_part(server: Server, target: Path) -> None:
    """A kill between the last byte and the check leaves this state."""
    url = server.add(cut=[0.4, 0.0, 0.0])
    refusal(fetch, target, [url], checksum=SHA256, patience=QUICK)
    target.with_name("a.tar.part").write_bytes(CONTENT)
    fetch(target, [url], checksum=SHA256)
    assert target.read_bytes() == CONTENT
    assert len(server.seen) == 3


def test_fetch_resumes_part_from_another_mirror(server: Server, target: Path) -> None:
    first, second = server.add("/1", cut=[0.4, 0.0, 0.0]), server.add("/2", etag='"another name"')
    fetch(target, [first, second], checksum=SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert server.seen[-1] == ("/2", "bytes=400000-", None)
    target.unlink()
    server.add("/1", cut=[0.4, 0.0, 0.0])
    fetch(target, [first, second], patience=QUICK)  # not without a checksum, which would detect another file
    assert target.read_bytes() == CONTENT
    assert server.seen[-1] == ("/2", None, None)


def test_fetch_does_not_resume_from_file_of_another_size(server: Server, target: Path, capfd) -> None:
    urls = [server.add("/2", content=OTHER + OTHER, etag=None), server.add("/3")]
    for size in (len(CONTENT), None):
        server.seen.clear()
        first = server.add("/1", cut=[0.4, 0.0, 0.0])
        fetch(target, [first, *urls], checksum=SHA256, size=size, patience=QUICK)
        assert target.read_bytes() == CONTENT
        if size:  # known to be wrong, so the part is kept for the third mirror
            assert server.ranges("/2") == ["bytes=400000-"]
            assert server.ranges("/3") == ["bytes=400000-"]
        else:
            assert "/2: does not match the partial file" in capfd.readouterr().err
            assert server.ranges("/2") == ["bytes=400000-", None]
            assert server.ranges("/3") == [None]
        target.unlink()


def test_fetch_does_not_count_tries_with_progress(server: Server, target: Path) -> None:
    content = np.random.default_rng(2).bytes(8_000_000)
    server.add(content=content, cut=[0.3] * 4)
    fetch(target, [f"{server.url}/a.tar"], patience=QUICK)  # 3 tries
    assert target.read_bytes() == content
    assert len(server.seen) == 5


def test_fetch_gives_up_if_parts_never_match(server: Server, target: Path) -> None:
    url = server.add(content=OTHER, cut=[0.4, 1.0] * 9)
    message = refusal(fetch, target, [url], checksum=SHA256, patience=Patience(pause=0.01))
    assert re.search(r"has SHA-256 \w+, expected", message)
    assert server.ranges() == [None, "bytes=400000-"] * 2


@pytest.mark.parametrize("status", [404, 403, 500, 503])
def test_fetch_tries_next_mirror(server: Server, target: Path, status: int, capfd) -> None:
    first, second = server.add("/1", status=[status] * 9), server.add("/2")
    assert fetch(target, [first, second], checksum=MD5, patience=QUICK) == target
    assert target.read_bytes() == CONTENT
    assert len(server.ranges("/1")) == (QUICK.tries if status >= 500 else 1)
    told = capfd.readouterr().err
    assert re.search(rf"{first}: {status} ", told)
    assert f"{second}: 1.0 MB\n" in told


def test_fetch_retries_after_status_500(server: Server, target: Path) -> None:
    url = server.add(status=[500])
    fetch(target, [url], checksum=SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert len(server.seen) == 2


def test_fetch_leaves_stalled_server(server: Server, target: Path) -> None:
    quiet, trickle = server.add("/1", stall=9), server.add("/2", seconds=450)
    began = time.monotonic()
    fetch(
        target,
        [quiet, trickle, server.add("/3")],
        checksum=SHA256,
        patience=Patience(timeout=0.5, tries=2, pause=0.01),
    )
    assert time.monotonic() - began < 8
    assert target.read_bytes() == CONTENT
    assert server.ranges("/1") == [None, None]
    assert server.ranges("/2") == [None, "bytes=20001-"]
    assert server.ranges("/3") == ["bytes=39601-"]  # the bytes from the slow mirror are kept


def test_fetch_keeps_range_on_redirect(server: Server, target: Path) -> None:
    server.add("/real", cut=[0.4])
    fetch(target, [server.add(redirect="/real")], checksum=SHA256, patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert server.ranges("/real") == [None, "bytes=400000-"]


def test_fetch_rejects_wrong_checksum_and_keeps_nothing(server: Server, target: Path) -> None:
    urls = [server.add("/1", content=OTHER), server.add("/2", content=OTHER, cut=[0.4])]
    for checksum, name in ((SHA256, "sha256"), (MD5, "md5")):
        server.seen.clear()
        message = refusal(fetch, target, urls, checksum=checksum, patience=QUICK)
        digest = hashlib.new(name, OTHER).hexdigest()
        for url in urls:
            assert re.search(rf"{url}: has .* {digest}, expected {checksum.partition(':')[2]};", message)
        assert f"get a.tar ({'SHA-256' if name == 'sha256' else 'MD5'}" in message
        assert f"put it at {target}" in message
        assert beside(target) == set()
        assert server.ranges("/1") == [None]
    assert fetch(target, [*urls, server.add("/3")], checksum=SHA256) == target
    assert server.ranges("/3") == [None]


def test_fetch_rejects_wrong_size_before_download(server: Server, target: Path, capfd) -> None:
    url = server.add()
    message = refusal(fetch, target, [url], size=2_000_000)
    assert f"{url}: has 1000000 bytes, expected 2000000" in message
    assert f"{url}: 1.0 MB" not in capfd.readouterr().err  # the message at the start of a download
    assert beside(target) == set()


def test_fetch_checks_known_size_without_content_length(server: Server, target: Path) -> None:
    url = server.add(length=None, cut=[0.4])
    fetch(target, [url], size=len(CONTENT), patience=QUICK)
    assert target.read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=400000-"]


def test_fetch_keeps_wrong_target_until_replaced(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(OTHER)
    gone = f"{server.url}/gone"
    with pytest.raises(Unavailable) as caught:
        fetch(target, [gone], checksum=SHA256)
    assert set(caught.value.reasons) == {str(target), gone}
    assert target.read_bytes() == OTHER
    fetch(target, [server.add()], checksum=SHA256)
    assert target.read_bytes() == CONTENT


def test_fetch_checks_local_file_and_uses_it_in_place(server: Server, tmp_path: Path, target: Path) -> None:
    local = tmp_path / "got by hand.tar"
    local.write_bytes(CONTENT)
    server.add()
    for name in (str(local), local.as_uri()):
        assert fetch(target, ["no/such.tar", name, f"{server.url}/a.tar"], checksum=SHA256) == local
    assert "%20" in local.as_uri()
    local.write_bytes(OTHER)
    message = refusal(fetch, target, [str(local), "no/such.tar"], checksum=SHA256)
    assert f"{local}: has SHA-256" in message
    assert "no/such.tar: no such file" in message
    assert local.read_bytes() == OTHER
    assert server.seen == []
    assert not target.exists()


def test_fetch_reports_unreachable_addresses(target: Path) -> None:
    began = time.monotonic()
    message = refusal(fetch, target, ["http://127.0.0.1:9/a", "http://no such host/", "https://"])
    assert time.monotonic() - began < 1  # an address that never answered is not retried
    assert "http://127.0.0.1:9/a: [Errno 111] Connection refused" in message
    assert "http://no such host/: " in message
    assert "https://: " in message


@pytest.mark.parametrize("checksum", ["abcdef0123", "sha1:abcdef0123", "sha256:abc", "md5:ABCDEF0123"])
def test_fetch_rejects_invalid_checksum(target: Path, checksum: str) -> None:
    with pytest.raises(ValueError, match="checksum must be like md5"):
        fetch(target, [], checksum=checksum)


# Disks


def test_fetch_rejects_file_larger_than_free_space(server: Server, target: Path) -> None:
    urls = [server.add("/1", length=10**18), server.add("/2")]
    message = refusal(fetch, target, urls)
    assert f"{target}: needs 1000000000000.0 MB, only " in message
    assert beside(target) == set()
    assert server.ranges("/2") == []  # another mirror would not help


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_fetch_and_extract_report_full_disk(server: Server, target: Path) -> None:
    url = server.add(length=None)  # so the size is unknown in advance
    with small_disk(target.parent):
        assert "cannot be written: no space left on the disk" in refusal(fetch, target, [url])
        assert not target.exists()
        archive = tar_of(target.parent.parent / "b.tar.gz", [("a", CONTENT), ("b", CONTENT)])
        message = refusal(extract, archive, target.parent / "b", limit=LIMIT)
        assert f"{target.parent / 'b'}: needs more than the " in message
        assert beside(target) == {"a.tar.part", "a.tar.part.json"}


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "import sys\nfrom pathlib import Path\n" + code, *map(str, arguments)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_fetch_resumes_after_write_error(server: Server, target: Path) -> None:
    url = server.add()
    code = """
import resource
from plda.download.fetch import fetch
from plda.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    fetch(Path(sys.argv[1]), [sys.argv[2]])
except InputError as error:
    sys.exit(str(error))
"""
    run = python(code, target, url)
    told = run.communicate(timeout=60)[1]
    assert run.returncode == 1
    assert f"{target}: cannot be written: the file would exceed the size limit" in told
    assert beside(target) == {"a.tar.part", "a.tar.part.json"}
    assert target.with_name("a.tar.part").stat().st_size == 300_000
    fetch(target, [url], checksum=SHA256)
    assert target.read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=300000-"]


# Processes

FETCH = """
from plda.download.fetch import fetch
fetch(Path(sys.argv[1]), [sys.argv[2]], checksum=sys.argv[3])
"""


def test_fetch_in_two_processes_downloads_once(server: Server, target: Path) -> None:
    url = server.add(seconds=2)
    runs = [python(FETCH, target, url, SHA256) for _ in range(2)]
    told = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    assert target.read_bytes() == CONTENT
    assert server.ranges() == [None]
    assert sum("waiting for another process" in text for text in told) == 1
    assert beside(target) == {"a.tar"}


def test_fetch_resumes_after_kill(server: Server, target: Path) -> None:
    url = server.add(seconds=20)
    run = python(FETCH, target, url, SHA256)
    part = target.with_name("a.tar.part")
    wait_until(lambda: part.exists() and part.stat().st_size > 100_000)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    assert run.returncode == -signal.SIGKILL
    assert not target.exists()
    there = part.stat().st_size
    server.add()
    again = python(FETCH, target, url, SHA256)
    told = again.communicate(timeout=60)[1]
    assert again.returncode == 0, told
    assert target.read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={there}-"]
    assert beside(target) == {"a.tar"}


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_fetch_shows_progress_bar_in_terminal(server: Server, target: Path) -> None:
    url = server.add(seconds=1)
    here, there = pty.openpty()
    termios.tcsetwinsize(there, (24, 80))
    code = "import sys\nfrom pathlib import Path\n" + FETCH
    with subprocess.Popen(
        [sys.executable, "-c", code, str(target), url, SHA256], cwd=ROOT, stderr=there
    ) as run:
        os.close(there)
        shown = b""
        while select.select([here], [], [], 60)[0]:
            try:
                shown += os.read(here, 4096)
            except OSError:  # the other end is closed
                break
    os.close(here)
    assert run.returncode == 0, shown
    assert re.search(rb"a\.tar: +[1-9]\d?%\|.*/1\.00M", shown)


# Archives


def tar_of(path: Path, entries: list[tuple[str, bytes | tarfile.TarInfo]]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as tar:
        for name, content in entries:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size, info.mode = len(content), 0o6777
                tar.addfile(info, io.BytesIO(content))
            else:
                tar.addfile(info)
    return path


def zip_of(path: Path, entries: list[tuple[str, bytes]], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename = name  # bypasses the checks of the packer
            info.external_attr = mode << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def archive_of(path: Path, entries: list[tuple[str, bytes]]) -> Path:
    return zip_of(path, entries) if path.suffix == ".zip" else tar_of(path, list(entries))


def special(name: str, kind: bytes, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


GOOD = [
    ("VOC/JPEGImages/1.jpg", CONTENT[:70_000]),
    ("./VOC/JPEGImages/2.jpg", b""),
    ("VOC/JPEGImages2/3.jpg", b"three"),
    ("VOC/sets/a/train.txt", b"1\n2\n"),
]
KINDS = ["a.tar", "a.tar.gz", "a.zip"]


def files_in(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != NOTE)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


@pytest.mark.parametrize("name", KINDS)
def test_extract_unpacks_archive_once(tmp_path: Path, name: str) -> None:
    archive, folder = archive_of(tmp_path / name, GOOD), tmp_path / "out" / "folder"
    os.utime(archive, (1, 1))
    extract(archive, folder, limit=LIMIT)
    assert files_in(folder) == {path.removeprefix("./"): content for path, content in GOOD}
    usual = tmp_path / "usual"
    usual.touch()
    for file in folder.rglob("*.*"):
        assert file.stat().st_mode == usual.stat().st_mode  # 6777 in the tar: setuid, setgid, executable
    (folder / "mark").touch()
    extract(archive, folder, limit=LIMIT)
    assert (folder / "mark").exists()
    os.utime(archive, (2, 2))  # possibly another archive
    extract(archive, folder, limit=LIMIT)
    assert not (folder / "mark").exists()
    assert beside(folder) == {"folder"}


@pytest.mark.parametrize("name", KINDS)
def test_extract_unpacks_selected_paths(tmp_path: Path, name: str) -> None:
    archive, folder = archive_of(tmp_path / name, [*GOOD, ("../evil", b"")]), tmp_path / "folder"
    extract(archive, folder, limit=LIMIT, only=["VOC/JPEGImages/", "VOC/sets/a/train.txt"])
    assert set(files_in(folder)) == {"VOC/JPEGImages/1.jpg", "VOC/JPEGImages/2.jpg", "VOC/sets/a/train.txt"}
    extract(archive, folder, limit=LIMIT, only=["VOC/sets"])
    assert set(files_in(folder)) == {"VOC/sets/a/train.txt"}
    message = refusal(extract, archive, tmp_path / "none", limit=LIMIT, only=["VOC/sets", "VOC/JPEG"])
    assert message == f"{archive}: does not contain VOC/JPEG"
    assert not (tmp_path / "none").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("evil", "words"),
    [
        ("../evil", "leads out of the folder"),
        ("VOC/../../evil", "leads out of the folder"),
        ("/tmp/evil", "is an absolute path"),
        ("C:/evil", "is an absolute path"),
        ("C:evil", "is an absolute path"),
        ("..\\evil", "is not a plain path"),
        ("é\0evil", "is not a plain path"),
        ("VOC/sets", "duplicate entry"),
        ("VOC/sets/a/train.txt", "duplicate entry"),
        ("VOC/sets/a/train.txt/evil", "duplicate entry"),
    ],
)
def test_extract_rejects_unsafe_names(tmp_path: Path, name: str, evil: str, words: str) -> None:
    archive = archive_of(tmp_path / name, [*GOOD, (evil, b"evil")])
    nothing_comes_of(archive, tmp_path, [repr(evil), words])


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize(
    ("kind", "to", "words"),
    [
        (tarfile.SYMTYPE, "/etc", "is a symbolic link"),
        (tarfile.SYMTYPE, "VOC", "is a symbolic link"),
        (tarfile.LNKTYPE, "/etc/passwd", "is a hard link"),
        (tarfile.LNKTYPE, "VOC/sets/a/train.txt", "is a hard link"),
        (tarfile.CHRTYPE, "", "is a device or another special file"),
        (tarfile.BLKTYPE, "", "is a device or another special file"),
        (tarfile.FIFOTYPE, "", "is a device or another special file"),
        (tarfile.GNUTYPE_SPARSE, "", "is a sparse file"),
    ],
)
def test_extract_rejects_special_files_in_tar(
    tmp_path: Path, name: str, kind: bytes, to: str, words: str
) -> None:
    archive = tar_of(tmp_path / name, [*GOOD, ("evil", special("evil", kind, to))])
    nothing_comes_of(archive, tmp_path, ["'evil'", words])


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (stat.S_IFLNK, "is a symbolic link"),
        (stat.S_IFCHR, "is a device or another special file"),
        (stat.S_IFIFO, "is a device or another special file"),
    ],
)
def test_extract_rejects_special_files_in_zip(tmp_path: Path, mode: int, words: str) -> None:
    archive = zip_of(tmp_path / "a.zip", [("evil", b"/etc")], mode | 0o777)
    nothing_comes_of(archive, tmp_path, ["'evil'", words])


def nothing_comes_of(archive: Path, tmp_path: Path, words: list[str]) -> None:
    """Check that extraction fails and leaves no file inside, outside or under a temporary name."""
    before = set(tmp_path.rglob("*"))
    folder = tmp_path / "deep" / "down" / "folder"
    message = refusal(extract, archive, folder, limit=LIMIT)
    assert all(word in message for word in [str(archive), *words]), message
    harmless = {tmp_path / "deep", tmp_path / "deep/down", tmp_path / "deep/down/.folder.lock"}
    assert set(tmp_path.rglob("*")) == before | harmless


@pytest.mark.parametrize("name", KINDS)
def test_extract_rejects_archive_bomb(tmp_path: Path, name: str) -> None:
    archive = archive_of(tmp_path / name, [("big", bytes(LIMIT))])
    nothing_comes_of(archive, tmp_path, ["holds more than 10.0 MB"])
    many = archive_of(tmp_path / f"many-{name}", [(str(i), b"") for i in range(2500)])
    nothing_comes_of(many, tmp_path, ["holds more than 10.0 MB"])  # each file takes a disk block or an inode


@pytest.mark.parametrize("said", [100, 2_000_000])
def test_extract_rejects_zip_with_wrong_sizes(tmp_path: Path, said: int) -> None:
    archive = zip_of(tmp_path / "a.zip", [("big", bytes(1_234_567))])
    true = (1_234_567).to_bytes(4, "little")
    assert archive.read_bytes().count(true) == 2
    archive.write_bytes(archive.read_bytes().replace(true, said.to_bytes(4, "little")))
    nothing_comes_of(archive, tmp_path, ["is damaged"])


def test_extract_rejects_encrypted_zip(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", [("secret", b"secret")])
    content = bytearray(archive.read_bytes())
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(header) + flags] |= 1
    archive.write_bytes(content)
    nothing_comes_of(archive, tmp_path, ["'secret' is encrypted"])


@pytest.mark.parametrize("place", [-8, -4])
def test_extract_rejects_zip_with_invalid_offset(tmp_path: Path, place: int) -> None:
    """The size or the offset of the directory, in the last record, is wrong."""
    archive = zip_of(tmp_path / "a.zip", list(GOOD))
    content = bytearray(archive.read_bytes())
    content[place] = 255
    archive.write_bytes(content)
    nothing_comes_of(archive, tmp_path, ["is damaged"])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.4, 0.6, 0.99])
def test_extract_rejects_truncated_archive(tmp_path: Path, name: str, share: float) -> None:
    archive = archive_of(tmp_path / name, [("a", CONTENT), ("b", CONTENT)])
    size = archive.stat().st_size
    end = 1024 if name == "a.tar" else 0  # a tar may lack only the rest of its last record
    content = archive.read_bytes()[: int(size * share)].rstrip(b"\0"[:end])
    archive.write_bytes(content)
    nothing_comes_of(archive, tmp_path, ["is damaged, truncated, or not a tar or zip"])


def test_extract_rejects_tar_without_end(tmp_path: Path) -> None:
    """Python's tarfile and GNU tar do not detect this."""
    archive = tar_of(tmp_path / "a.tar", [("a", bytes(512)), ("b", bytes(512))])
    archive.write_bytes(archive.read_bytes()[:1024])
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["a"]
    nothing_comes_of(archive, tmp_path, ["its end is missing"])


@pytest.mark.parametrize("name", KINDS)
def test_extract_rejects_damaged_archive(tmp_path: Path, name: str) -> None:
    """Damages a header in a tar, content otherwise: content in a plain tar has no checksum."""
    archive = archive_of(tmp_path / name, [("a", CONTENT[:512]), ("b", CONTENT[:512])])
    content = bytearray(archive.read_bytes())
    at = 1024 + 5 if name == "a.tar" else 300
    content[at] ^= 1
    archive.write_bytes(content)
    nothing_comes_of(archive, tmp_path, ["is damaged"])


def test_extract_rejects_file_that_is_no_archive(tmp_path: Path) -> None:
    page = tmp_path / "a.zip"
    page.write_text("<html>Please log in</html>" * 100)
    nothing_comes_of(page, tmp_path, ["not a tar or zip"])
    (tmp_path / "a.tar").mkdir()
    nothing_comes_of(tmp_path / "a.tar", tmp_path, ["cannot be read"])
    message = refusal(extract, tmp_path / "gone.tar", tmp_path / "out", limit=LIMIT)
    assert message == f"{tmp_path / 'gone.tar'}: cannot be read: No such file or directory"


def test_extract_rejects_bytes_after_end_of_tar_gz(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", list(GOOD))
    bomb = tmp_path / "a.tar.gz"
    bomb.write_bytes(gzip.compress(archive.read_bytes() + bytes(50_000_000)))
    nothing_comes_of(bomb, tmp_path, ["has data after its end"])


def test_extract_does_not_replace_other_folder(tmp_path: Path) -> None:
    archive, folder = tar_of(tmp_path / "a.tar", list(GOOD)), tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.tex").write_text("all of it")
    assert "was not made by this command" in refusal(extract, archive, folder, limit=LIMIT)
    assert files_in(folder) == {"thesis.tex": b"all of it"}


EXTRACT = """
from plda.download.extract import extract
extract(Path(sys.argv[1]), Path(sys.argv[2]), limit=10**9)
"""


def test_extract_recovers_after_kill(tmp_path: Path) -> None:
    # so many that the extraction lasts longer than this process may have to wait for a core
    entries = [(f"{i:05}", CONTENT[:500]) for i in range(20_000)]
    archive, folder = tar_of(tmp_path / "a.tar", list(entries)), tmp_path / "out" / "folder"
    run = python(EXTRACT, archive, folder)
    begun = folder.with_name(f".folder.{run.pid}.tmp")
    wait_until(lambda: begun.exists() and len(list(begun.iterdir())) > 500)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    assert run.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert 500 < len(list(begun.iterdir())) < len(entries)
    neighbour = folder.with_name(f".folder.b.{run.pid}.tmp")
    neighbour.mkdir()
    runs = [python(EXTRACT, archive, folder) for _ in range(2)]  # two at the same time
    told = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    assert sum("unpacking into" in text for text in told) == 1
    assert files_in(folder) == dict(entries)
    assert not begun.exists()
    assert neighbour.exists()


# Archives read without extraction


@pytest.mark.parametrize("name", ["a.tar", "a.zip", "folder"])
def test_packed_reads_files_by_name(tmp_path: Path, name: str) -> None:
    if name == "folder":
        extract(tar_of(tmp_path / "a.tar", list(GOOD)), tmp_path / name, limit=LIMIT)
        (tmp_path / name / NOTE).unlink()
    else:
        archive_of(tmp_path / name, [*GOOD, ("../evil", b""), ("C:evil", b"")])
    packed = pickle.loads(pickle.dumps(Packed(tmp_path / name)))  # as sent to a worker process
    expected = {path.removeprefix("./"): content for path, content in GOOD}
    assert sorted(packed.names()) == sorted(expected)
    assert {path: packed.read(path) for path in packed.names()} == expected
    for other in ("../evil", "C:evil", "VOC", "VOC/gone"):
        with pytest.raises(KeyError):
            packed.read(other)


def test_packed_rejects_unreadable_archives(tmp_path: Path) -> None:
    compressed = tar_of(tmp_path / "a.tar.gz", list(GOOD))
    assert "is a tar.gz" in refusal(Packed, compressed)
    whole = tar_of(tmp_path / "a.tar", list(GOOD))
    whole.write_bytes(whole.read_bytes()[:30_000])
    assert "is damaged" in refusal(Packed, whole)
    archive = zip_of(tmp_path / "a.zip", [("a", CONTENT[:512])])
    content = bytearray(archive.read_bytes())
    content[100] ^= 1
    archive.write_bytes(content)
    assert f"{archive}: is damaged" in refusal(Packed(archive).read, "a")
    assert "cannot be read" in refusal(Packed, tmp_path / "gone.tar")


def test_fetch_ignores_damaged_notes(server: Server, target: Path) -> None:
    url = server.add(cut=[0.4, 0.0, 0.0])
    refusal(fetch, target, [url], checksum=SHA256, patience=QUICK)
    note = target.with_name("a.tar.part.json")
    assert json.loads(note.read_text()) == {"url": url, "version": '"1"', "size": 1_000_000}
    for text in ("", "[]", '{"url": "x"}', "\0"):
        note.write_text(text)
        server.add(cut=[0.4, 0.0, 0.0])
        server.seen.clear()
        refusal(fetch, target, [url], checksum=SHA256, patience=QUICK)
        assert server.ranges()[0] is None
    note.unlink()
    fetch(target, [url], checksum=SHA256)
    assert server.ranges()[-1] is None
    target.with_name(".a.tar.checked").write_text("{")
    assert fetch(target, [], checksum=SHA256) == target
