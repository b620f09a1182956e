"""Photos from phones, scanners, cameras and editors: decoded correctly or refused with a message."""

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Photos, Refusal, encoded, photo
from PIL import Image, PngImagePlugin
from test_predict import saved

from plda.data import images
from plda.data.archive import Archive
from plda.data.images import image_size, keep_image, read_image
from plda.errors import InputError
from plda.use.network import TrainedNetwork


def exif(*entries: bytes, tail: bytes = b"") -> bytes:
    """Return an EXIF block of raw entries; `tail` holds their values."""
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries))
    return head + b"".join(entries) + struct.pack("<I", 0) + tail


TURNED = struct.pack("<HHII", 0x0112, 3, 1, 6)  # orientation 6
BROKEN_EXIF = {
    "impossible_resolution": exif(
        TURNED, struct.pack("<HHII", 0x011A, 10, 1, 38), tail=struct.pack("<ii", -1, 0)
    ),
    "text_for_a_number": exif(TURNED, struct.pack("<HHI4s", 0x0100, 2, 3, b"64\0\0")),
    "value_outside": exif(TURNED, struct.pack("<HHII", 0x010F, 2, 90, 10**6)),
    "unknown_type": exif(TURNED, struct.pack("<HHII", 0x0111, 99, 1, 0)),
}


@pytest.mark.parametrize("kind", BROKEN_EXIF)
def test_read_image_ignores_broken_exif_fields(kind: str) -> None:
    content = encoded(photo(48, 32), exif=BROKEN_EXIF[kind])
    assert image_size(content) == read_image(content).size == (32, 48)
    kept, given, size = keep_image(content, None)
    assert given == size == (32, 48)
    assert Image.open(io.BytesIO(kept)).size == (32, 48)


@pytest.mark.parametrize(
    "block",
    [exif(TURNED)[:20], b"Exif\0\0nonsense", exif(struct.pack("<HHII", 0x0112, 3, 1, 77)), b"Exif\0\0"],
    ids=["cut", "nonsense", "orientation_77", "empty"],
)
def test_read_image_ignores_unreadable_exif(block: bytes) -> None:
    content = encoded(photo(48, 32), exif=block)
    assert np.array_equal(read_image(content), Image.open(io.BytesIO(content)))


def test_mpo_photo_is_kept_as_jpeg(photos: Photos, tmp_path: Path) -> None:
    content = encoded(photo(80, 60), "MPO", save_all=True, append_images=[photo(20, 15)])
    (photos.folder / "a.jpg").write_bytes(content)
    photos.rows[0] = "a.jpg,train,cat,"
    photos.write()
    assert photos.index(tmp_path) == 0
    assert Archive(tmp_path / "data_set/images.zip").read("images/a.jpg") == content
    small, _, size = keep_image(content, 40)
    assert size == (40, 30)
    assert Image.open(io.BytesIO(small)).format == "JPEG"


def test_read_image_accepts_png_with_long_text() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", " " * 3_000_000, zip=True)
    notes.add_text("prompt", "a dog" * 400_000, zip=True)
    image = photo(48, 32)
    assert np.array_equal(read_image(encoded(image, "PNG", pnginfo=notes)), image)


def test_read_image_scales_float_tiff() -> None:
    grey = np.asarray(photo(48, 32).convert("L"))
    content = encoded(Image.fromarray(grey.astype(np.float32) / 255), "TIFF")
    assert np.array_equal(np.asarray(read_image(content))[..., 0], grey)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((4, 4), 200.0, np.float32), ["float", "200", "[0, 1]"]),
        (np.full((4, 4), np.nan, np.float32), ["float", "nan"]),
        (np.full((4, 4), -0.5, np.float32), ["float", "-0.5"]),
        (np.full((4, 4), 70000, np.int32), ["32-bit"]),
    ],
)
def test_read_image_rejects_tiff_of_unknown_range(pixels: np.ndarray, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        read_image(encoded(Image.fromarray(pixels), "TIFF"))
    assert all(word in str(error.value) for word in words)


def test_read_image_reports_all_decoder_errors() -> None:
    """A file that is cut or changed anywhere is read or refused with InputError."""
    random = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "MPO", "AVIF", "JPEG2000", "TGA", "PCX"):
        whole = encoded(photo(60, 40), kind)
        for _ in range(60):
            spoilt = bytearray(whole[: random.integers(1, len(whole) + 1)])
            for _ in range(random.integers(0, 5)):
                spoilt[random.integers(len(spoilt))] = random.integers(256)
            try:
                assert read_image(bytes(spoilt)).mode == "RGB"
            except InputError as error:
                assert str(error)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_read_image_rejects_too_many_pixels(kind: str, monkeypatch) -> None:
    monkeypatch.setattr(images, "MOST_PIXELS", 48 * 32 - 1)
    with pytest.raises(InputError, match=r"at most .* megapixels, got 48x32"):
        read_image(encoded(photo(48, 32), kind))


def test_read_image_does_not_start_ghostscript() -> None:
    """Pillow would pass an EPS file to Ghostscript."""
    content = encoded(photo(48, 32), "EPS")
    assert Image.open(io.BytesIO(content)).format == "EPS"
    with pytest.raises(InputError, match="not an image"):
        read_image(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_read_image_at_reduced_size_keeps_requested_side(kind: str) -> None:
    content = encoded(photo(1600, 1000), kind)
    for side in (100, 300, 799, 1599, 1600, 4000):
        size = read_image(content, side).size
        assert min(side, 1600) <= max(size) <= 1600
        assert abs(size[0] / size[1] - 1.6) < 0.03
    assert max(read_image(content, 100).size) < 400


def test_keep_image_uses_little_memory(tmp_path: Path) -> None:
    """108 megapixels are 324 MB as RGB."""
    path = tmp_path / "large.jpg"
    Image.new("RGB", (12000, 9000), (90, 120, 60)).save(path)
    code = (
        "import resource, sys; from pathlib import Path; from plda.data.images import keep_image\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "content = Path(sys.argv[1]).read_bytes(); before = used()\n"
        "print(keep_image(content, 320)[1:], used() - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    size, grown = run.stdout.rsplit(" ", 1)
    assert size == "((12000, 9000), (320, 240))"
    assert int(grown) < 60


def test_index_data_names_each_unreadable_photo(photos: Photos, tmp_path: Path, refused: Refusal) -> None:
    (photos.folder / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    (photos.folder / "c.jpg").write_bytes(b"")
    message = refused(photos.index, tmp_path / "out")
    assert "line 2: field image: a.jpg" in message
    assert "line 4: field image: c.jpg" in message


def test_labels_agree_for_photo_read_at_reduced_size(tmp_path: Path) -> None:
    network = saved(tmp_path / "network.pt")
    labeller = TrainedNetwork(network, device="cpu", long_side=64, refinement={})
    content = encoded(photo(1600, 1200))
    small = read_image(content, labeller.reading_side)
    assert small.size == (400, 300)
    whole = labeller.label(read_image(content))
    labelled = labeller.label(small, size=image_size(content), confidence=False)
    assert labelled.confidence is None
    assert labelled.ids.shape == (1200, 1600)
    assert (labelled.ids == whole.ids).mean() > 0.99
    assert len(np.unique(whole.ids)) > 1


def test_index_data_reads_only_regular_files(photos: Photos, tmp_path: Path, refused: Refusal) -> None:
    (photos.folder / "a.jpg").unlink()
    os.mkfifo(photos.folder / "a.jpg")
    (photos.folder / "b.jpg").unlink()
    (photos.folder / "b.jpg").mkdir()
    with (photos.folder / "c.jpg").open("wb") as sparse:
        sparse.truncate(images.MOST_BYTES + 1)
    message = refused(photos.index, tmp_path / "out")
    assert message.count("must be a regular file") == 2
    assert "must have at most 4 GB" in message
