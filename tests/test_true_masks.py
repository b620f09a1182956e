"""True masks of labelling tools: ids, colours, and warnings about implausible masks."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Photos, Refusal, encoded
from PIL import Image

from plda.data.archive import Archive
from plda.data.images import VOID, read_mask
from plda.errors import InputError
from plda.sources.true_masks import VOC_COLOURS, read_true_mask

IDS = np.zeros((30, 40), np.uint8)
IDS[5:20, 5:20], IDS[22:, 10:], IDS[0] = 1, 2, VOID
SIZE = (40, 30)


def coloured(colours: dict[int, tuple[int, int, int]]) -> Image.Image:
    palette = np.zeros((256, 3), np.uint8)
    for class_id, colour in colours.items():
        palette[class_id] = colour
    return Image.fromarray(palette[IDS])


VOC = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), VOID: (224, 224, 192)}


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(IDS),
        Image.fromarray(IDS.astype(np.uint16)),
        coloured(VOC),
        coloured(VOC).convert("RGBA"),
        Image.merge("RGB", [Image.fromarray(IDS)] * 3),
        Image.merge("LA", [Image.fromarray(IDS), Image.new("L", SIZE, 255)]),
    ],
    ids=["grey", "16_bit", "voc_colours", "voc_colours_alpha", "grey_as_rgb", "grey_alpha"],
)
def test_read_true_mask_reads_ids(image: Image.Image) -> None:
    read = read_true_mask(encoded(image, "PNG"), SIZE, 2)
    assert read.dtype == np.uint8
    assert np.array_equal(read, IDS)


def test_read_true_mask_reads_palette_ids() -> None:
    image = Image.fromarray(IDS)
    image.putpalette([7, 7, 7] * 256)
    assert np.array_equal(read_true_mask(encoded(image, "PNG"), SIZE, 2), IDS)


def test_read_true_mask_reads_one_bit_masks() -> None:
    content = encoded(Image.fromarray(IDS == 1), "PNG")
    assert np.array_equal(read_true_mask(content, SIZE, 1), IDS == 1)
    assert set(np.unique(read_true_mask(content, SIZE, 2))) == {0, VOID}


def test_voc_colours_match_published_values() -> None:
    assert VOC_COLOURS[15] == (192, 128, 128)  # person
    assert VOC_COLOURS[20] == (0, 64, 128)  # tvmonitor


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (encoded(Image.fromarray(IDS), "JPEG"), ["JPEG", "PNG"]),
        (encoded(coloured(VOC), "WEBP"), ["WEBP"]),
        (encoded(Image.fromarray(IDS), "TIFF", compression="jpeg"), ["TIFF"]),
        (encoded(Image.fromarray(IDS * 3), "PNG"), ["id 3, 6", "0 to 2"]),
        (encoded(Image.fromarray(IDS.astype(np.uint16) * 300), "PNG"), ["id 300"]),
        (encoded(coloured({**VOC, 2: (1, 2, 3)}), "PNG"), ["#010203", "row 22, column 10"]),
        (encoded(coloured({**VOC, 2: VOC_COLOURS[3]}), "PNG"), ["#808000"]),
        (encoded(Image.merge("LA", [Image.fromarray(IDS)] * 2), "PNG"), ["transparent"]),
        (encoded(Image.new("F", SIZE), "TIFF"), ["mode F"]),
        (encoded(Image.new("L", (60000, 60000)).crop((0, 0, 41, 30)), "PNG"), ["40x30", "41x30"]),
        (b"P5 60000 60000 255\n", ["60000x60000"]),
        (b"no mask", ["not an image"]),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else "_".join(value),
)
def test_read_true_mask_rejects_invalid_masks(content: bytes, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        read_true_mask(content, SIZE, 2)
    assert all(word in str(error.value) for word in words)


def test_index_data_reads_mask_colours_of_classes_txt(photos: Photos, tmp_path: Path) -> None:
    (photos.folder / "classes.txt").write_text("background #ffffff\ncat #ff0000\ndog 0,0,255\n")
    mask = coloured({0: (255, 255, 255), 1: (255, 0, 0), 2: (0, 0, 255), VOID: (224, 224, 192)})
    (photos.folder / "a.png").write_bytes(encoded(mask, "PNG"))
    assert photos.index(tmp_path) == 0
    assert np.array_equal(read_mask(Archive(tmp_path / "data_set/images.zip").read("masks/a.png")), IDS)


def test_index_data_warns_about_mask_without_its_tags(photos: Photos, tmp_path: Path, capsys) -> None:
    for name, ids in (("a", (IDS == 1) * np.uint8(VOID)), ("c", (IDS == 1) * np.uint8(1))):
        (photos.folder / f"{name}.png").write_bytes(encoded(Image.fromarray(ids), "PNG"))
    photos.rows[2] = "c.jpg,val,dog,c.png"
    photos.write()
    assert photos.index(tmp_path) == 0
    said = capsys.readouterr().err
    assert "Warning: " in said
    assert "line 2: field mask: a.png holds ids 0, 255, but none of its tags' ids, 1 (cat); 255" in said
    assert "line 4: field mask: c.png holds ids 0, 1, but none of its tags' ids, 2 (dog)\n" in said


def test_index_data_warns_about_untagged_class_in_mask(photos: Photos, tmp_path: Path, capsys) -> None:
    (photos.folder / "a.png").write_bytes(encoded(Image.fromarray(IDS), "PNG"))
    photos.rows[1:] = ["b.jpg,train,cat,", "c.jpg,val,cat,"]
    photos.write()
    assert photos.index(tmp_path) == 0
    assert "line 2: field mask: a.png holds id 2, 'dog', but no image has this tag" in capsys.readouterr().err


def test_index_data_does_not_warn_about_valid_mask(photos: Photos, tmp_path: Path, capsys) -> None:
    assert photos.index(tmp_path) == 0
    assert "field mask" not in capsys.readouterr().err


def test_index_data_requires_upright_mask_for_rotated_photo(
    photos: Photos, tmp_path: Path, refused: Refusal
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (photos.folder / "a.jpg").write_bytes(encoded(Image.new("RGB", SIZE), exif=exif.tobytes()))
    assert "30x40, got 40x30" in refused(photos.index, tmp_path / "out")
