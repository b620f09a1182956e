"""Image formats, the index and its archive, and crops that depend only on their seed."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Photos, encoded, photo, small_params
from PIL import Image

from plda.data.archive import Archive
from plda.data.augment import augment
from plda.data.data_set import DataSet
from plda.data.datasets import MaskedCrops, TaggedCrops
from plda.data.images import VOID, colour, encode_mask, keep_image, read_image, read_mask
from plda.data.index import Entry
from plda.data.transforms import BEYOND
from plda.errors import InputError
from plda.params import Params, Training, check

ORIENTATION = 0x0112


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    w, h = image.size
    return [image.getpixel(xy) for xy in ((0, 0), (w - 1, 0), (0, h - 1), (w - 1, h - 1))]


def test_read_image_converts_grey_palette_and_16_bit() -> None:
    grey = Image.linear_gradient("L")
    assert np.array_equal(read_image(encoded(grey, "PNG")), np.repeat(np.asarray(grey)[..., None], 3, axis=2))
    palette = Image.new("P", (4, 2), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    assert corners(read_image(encoded(palette, "PNG"))) == [(200, 100, 50)] * 4
    deep = Image.fromarray(np.array([[0, 65535, 32896]], np.uint16))
    assert np.asarray(read_image(encoded(deep, "PNG")))[0, :, 0].tolist() == [0, 255, 128]


def test_read_image_puts_transparency_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    read = read_image(encoded(image, "PNG"))
    assert [read.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    assert corners(read_image(encoded(palette, "PNG", transparency=1))) == [(255, 255, 255)] * 4


def test_read_image_keeps_cmyk_colours() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 40))
    for kind in ("JPEG", "TIFF"):
        read = np.asarray(read_image(encoded(red.convert("CMYK"), kind)), float)
        assert np.abs(read - (200, 30, 40)).max() < 12, kind


@pytest.mark.parametrize("turn", range(1, 9))
def test_read_image_applies_exif_orientation(turn: int) -> None:
    """A photo that is stored rotated, with an EXIF orientation, is read upright."""
    upright = photo(48, 32)
    stored = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[turn]
    turned = upright
    for step in stored:
        turned = turned.transpose(step)
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    content = encoded(turned, "PNG", exif=exif.tobytes())
    assert np.array_equal(read_image(content), upright)
    kept, given, size = keep_image(content, None)
    assert given == size == (48, 32)
    assert np.array_equal(Image.open(io.BytesIO(kept)), upright)
    assert (kept == content) == (turn == 1)


def test_index_data_shrinks_large_images_and_masks(photos: Photos, tmp_path: Path) -> None:
    assert photos.index(tmp_path, index_data__long_side=32) == 0
    data = DataSet(tmp_path / "data_set")
    assert {(e.width, e.height) for e in data.entries} == {(32, 24)}
    assert tuple(data.images(data.entries).shape) == (3, 3, 24, 32)
    mask = data.true_mask(data.entries[0])
    assert mask.shape == (24, 32)
    assert set(np.unique(mask)) == {0, 1, VOID}


def test_index_data_writes_plain_table(photos: Photos, tmp_path: Path) -> None:
    (photos.folder / "dogs").mkdir()
    (photos.folder / "dogs" / "a.jpg").write_bytes(encoded(photo(50, 20)))
    photos.rows.append("dogs/a.jpg,val,dog;cat,")
    photos.write()
    assert photos.index(tmp_path) == 0
    frame = pd.read_csv(tmp_path / "data_set/index.csv", keep_default_na=False)
    assert list(frame.columns) == ["image", "split", "tags", "mask", "parts", "width", "height"]
    assert frame.iloc[3].tolist() == ["images/dogs/a.jpg", "val", "cat;dog", "", "", 50, 20]
    assert frame["mask"][0] == "masks/a.png"
    entries = DataSet(tmp_path / "data_set").split("val")
    assert [(e.key, e.tags) for e in entries] == [("c", ("dog",)), ("dogs/a", ("cat", "dog"))]
    archive = Archive(tmp_path / "data_set/images.zip")
    assert archive.read("images/a.jpg") == (photos.folder / "a.jpg").read_bytes()


def test_index_data_is_deterministic(photos: Photos, tmp_path: Path) -> None:
    for out in ("1", "2"):
        assert photos.index(tmp_path / out) == 0
    first, second = tmp_path / "1/data_set", tmp_path / "2/data_set"
    names = {"index.csv", "images.zip", "classes.txt"}
    assert {file.name for file in first.iterdir()} == {file.name for file in second.iterdir()} == names
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_encode_mask_keeps_ids_and_adds_colours() -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    content = encode_mask(ids)
    assert np.array_equal(read_mask(content), ids)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), colour(ids))
    colours = {tuple(c) for c in colour(ids).reshape(-1, 3).tolist()}
    assert len(colours) > 100
    assert len({tuple(c) for c in colour(ids).reshape(-1, 3)[:21].tolist()}) == 21


def training(**changes: object) -> Training:
    return check(
        Params, small_params(**{f"train_cam__{k}": v for k, v in changes.items()}), Path("test")
    ).train_cam


def test_crop_depends_on_seed_epoch_and_position(drawn: Path) -> None:
    data = DataSet(drawn / "data_set")

    def crops(seed: int) -> TaggedCrops:
        return TaggedCrops(data, training(), seed)

    item = crops(0)[1, 3]
    torch.manual_seed(99)
    again = crops(0)[1, 3]
    assert torch.equal(item["image"], again["image"])
    for other in (crops(0)[2, 3], crops(1)[1, 3], crops(0)[1, 4]):
        assert not torch.equal(item["image"], other["image"])
    assert item["image"].shape == (3, 64, 64)
    assert item["tags"].tolist() == [float(c in data.training[3].tags) for c in data.classes[1:]]


def test_crop_aligns_image_and_mask(drawn: Path) -> None:
    """The mask is computed from the image's pixels, so a crop shows whether image and mask match."""
    data = DataSet(drawn / "data_set")

    def bright(entry: Entry) -> np.ndarray:
        return (data.image(entry).float().mean(0) > 128).byte().numpy()

    crops = MaskedCrops(data, bright, training(jitter=0.0, scale=[0.7, 2.0]), 0)
    for position in range(len(crops)):
        item = crops[0, position]
        outside = item["mask"] == VOID
        assert (item["image"][:, outside] == torch.tensor(BEYOND)[:, None]).all()
        predicted = item["image"].mean(0) > 128 / 255

        def agreement(mask: torch.Tensor, ours=predicted, beyond=outside) -> float:
            return float((ours == mask.bool())[~beyond].float().mean())

        agree = agreement(item["mask"])
        assert agree > 0.85
        for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            assert agree > agreement(item["mask"].roll(shift, (0, 1))), (position, shift)


def test_augment_covers_scale_range() -> None:
    image = torch.full((3, 40, 60), 128, dtype=torch.uint8)
    mask = torch.ones(40, 60, dtype=torch.uint8)
    shares = []
    for seed in range(30):
        crop, ids = augment(
            image,
            mask,
            crop=60,
            scale=(0.5, 1.0),
            jitter=0.0,
            random=torch.Generator().manual_seed(seed),
        )
        assert crop.shape == (3, 60, 60)
        assert ids is not None
        shares.append(float((ids == 1).float().mean()))
    assert min(shares) >= 0.24 * 2 / 3  # a factor of 0.5 leaves a quarter of the image's area
    assert max(shares) <= 0.68
    assert max(shares) - min(shares) > 0.3


def test_index_data_accepts_test_images_without_tags(photos: Photos, tmp_path: Path) -> None:
    photos.rows.append("d.jpg,test,,")
    (photos.folder / "d.jpg").write_bytes((photos.folder / "a.jpg").read_bytes())
    photos.write()
    assert photos.index(tmp_path) == 0
    entries = DataSet(tmp_path / "data_set").split("test")
    assert entries == [Entry("images/d.jpg", "test", (), "", "", 40, 30)]


def test_archive_error_names_damaged_file(photos: Photos, tmp_path: Path) -> None:
    assert photos.index(tmp_path) == 0
    path = tmp_path / "data_set/images.zip"
    whole = bytearray(path.read_bytes())
    whole[100] ^= 1  # within the first image
    path.write_bytes(whole)
    with pytest.raises(InputError, match=r"images\.zip: is damaged"):
        Archive(path).read("images/a.jpg")
    path.write_bytes(whole[:-30])
    with pytest.raises(InputError, match=r"images\.zip: is damaged"):
        Archive(path).names()
