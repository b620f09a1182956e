"""The page, from small but real inputs: every file is written as the stages write it."""

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_params
from PIL import Image

from plda.data.archive import Archive, pack
from plda.data.creatures import CLASSES, draw
from plda.data.images import VOID, encode_image, encode_mask
from plda.data.index import Entry, write_index
from plda.data.loading import load_true_mask
from plda.files import write_json, write_text
from plda.masks.cams import map_size, write_cams
from plda.masks.folder import write_mask
from plda.params import Report, TrainSegmenter
from plda.report.gallery import choose
from plda.scoring.confusion import Confusion
from plda.scoring.masks import CURVE, Scored, trimap
from plda.scoring.summary import background_metrics, class_table, collect_metrics, curve_table
from plda.stages.report import report

SIZE = 48
VOID_ELEMENTS = {"meta", "img", "br", "path", "use", "rect"}
NASTY = "<script>alert('$x$')&.png"


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and text; every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID_ELEMENTS:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_ELEMENTS:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = attributes.items()
        return [found for name, found in self.elements if name == tag and wanted <= found.items()]


def write_inputs(folder: Path, *, scored: bool, train: int = 5, val: int = 3) -> dict[str, Path]:
    """The inputs of the stage: a few drawn scenes, half-right masks of them, scores of these."""
    names = ("index", "images", "classes", "cam_history", "cams", "pseudo_masks", "cam_metrics",
             "cam_class_scores", "seed_curve", "segmenter_history", "predictions", "metrics",
             "class_scores", "page")  # fmt: skip
    paths = {name: folder / name for name in names}
    entries, cams = [], []
    files: dict[str, bytes] = {}
    kinds = ("seeds", "pamr", "pseudo_masks", "predictions")
    sets = {name: Scored(Confusion(len(CLASSES)), Confusion(len(CLASSES)), None) for name in kinds}
    for number in range(train + val):
        scene = draw(0, number, size=SIZE, body_cue=1.0, part_size=0.2)
        split = "train" if number < train else "val"
        name = f"{split}/{number} {NASTY if number == 0 else '.png'}"
        entry = Entry(
            f"images/{name}", split, scene.tags, f"masks/{number}.png" if scored else "", "", SIZE, SIZE
        )
        entries.append(entry)
        files |= {entry.image: encode_image(scene.image), f"masks/{number}.png": encode_mask(scene.mask)}
        made = scene.mask.copy()
        made[:8], made[8:12] = 0, VOID
        if split == "train":
            cams.append((entry.key, torch.rand(len(scene.tags), *map_size(SIZE, SIZE))))
        write_mask(paths["pseudo_masks" if split == "train" else "predictions"], entry, made)
        for kind in kinds[:3] if split == "train" else kinds[3:]:
            if scored:
                sets[kind].everywhere.add(scene.mask, made)
                sets[kind].outlines.add(trimap(scene.mask, 3), made)
    write_index(paths["index"], entries)
    pack(paths["images"], files.items())
    write_text(paths["classes"], "\n".join(CLASSES))
    write_cams(paths["cams"], cams)
    curve = dict.fromkeys(CURVE, sets["seeds"].everywhere)
    background = {"seeds": 0.31, "pamr": 0.42, "pseudo_masks": 0.42}
    if scored:
        sets["seeds"] = sets["seeds"]._replace(parts={"telling": 0.77, "body": 0.11})
    predicted = {"predictions": sets.pop("predictions")}
    scores = background_metrics(
        collect_metrics(sets), {"seeds": curve, "pamr": curve}, background, "Otsu's threshold"
    )
    write_json(paths["cam_metrics"], scores)
    write_json(paths["metrics"], collect_metrics(predicted))
    for name, some in (("cam_class_scores", sets), ("class_scores", predicted)):
        table = class_table({kind: every.everywhere for kind, every in some.items()}, CLASSES)
        write_text(paths[name], table.to_csv(index=False))
    write_text(paths["seed_curve"], curve_table(curve).to_csv(index=False))
    history = pd.DataFrame({"epoch": [1, 2], "step": [3, 6], "lr": [1e-3, 1e-4], "loss": [0.7, 0.5]})
    domains = {"train_source": [9.0, 8.0], "train_target": [3.0, 4.0]}
    precision = {f"{name}_precision": [60.0, 71.0] for name in domains} if scored else {}
    write_text(paths["cam_history"], history.assign(**domains, **precision).to_csv(index=False))
    write_text(paths["segmenter_history"], history.to_csv(index=False))
    return paths


def make_page(paths: dict[str, Path], gallery: int = 4, supervision: str = "tags") -> Page:
    learnt = small_params(train_segmenter__supervision=supervision)["train_segmenter"]
    report(**paths, report=Report(gallery=gallery), train_segmenter=TrainSegmenter.model_validate(learnt))
    return Page(paths["page"].read_text())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("scored"), scored=True)


@pytest.fixture(scope="module")
def page(inputs: dict[str, Path]) -> Page:
    return make_page(inputs)


def test_shows_scores_and_classes(inputs: dict[str, Path], page: Page) -> None:
    metrics: dict[str, Any] = {}
    for name in ("cam_metrics", "metrics"):
        metrics |= json.loads(inputs[name].read_text())
    for name in ("seeds", "pamr", "pseudo_masks", "predictions"):
        assert f"{metrics[name]['miou']:.1f}" in page.text
        assert f"{metrics[name]['miou_outlines']:.1f}" in page.text
    assert "after PAMR" in page.text and "after the random walk" not in page.text
    assert f"{metrics['pseudo_masks']['undecided']:.1f} % of the pixels undecided" in page.text
    assert "77.0" in page.text and "11.0" in page.text  # recall on telling parts and on bodies
    assert "scored on 5 training images" in page.text and "scored on 3 unseen images" in page.text
    assert "upper bound" in page.text and "Otsu's threshold" in page.text
    for name in CLASSES:
        assert page.text.count(name) >= 3  # chart, table, legend
    assert len(page.all("svg", role="img")) == 5
    (domains,) = (svg for svg in page.all("svg") if "source and target pixels" in str(svg["aria-label"]))
    assert "target, share of pixels 4 percent" in str(domains["aria-label"])
    assert "source, on their object 71 percent" in str(domains["aria-label"])
    assert "Nothing is scored" not in page.text


def test_says_what_the_segmentation_network_learnt_from(inputs: dict[str, Path], page: Page) -> None:
    claims = ("what the segmentation network learnt from", "as if they were true", "never to train")
    assert all(claim in page.text for claim in claims)
    full = make_page(inputs | {"page": inputs["page"].with_name("full")}, supervision="masks")
    assert not any(claim in full.text for claim in claims)
    assert "learnt from the true masks of the training images" in full.text


def test_needs_nothing_from_elsewhere(page: Page) -> None:
    assert not page.all("script") and not page.all("link")
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("data:image/", "#")), tag
        assert "url(h" not in (attributes.get("style") or "")


def test_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_file_names_are_escaped(inputs: dict[str, Path], page: Page) -> None:
    assert f"train/0 {NASTY}" in page.text
    assert "<script" not in inputs["page"].read_text()


def test_pictures_have_words(page: Page) -> None:
    pictures = page.all("img")
    assert len(pictures) == 2 * 4 + 2 * 3  # train: no prediction; val: no heat map, no pseudo-mask
    assert all(picture["alt"] for picture in pictures)
    assert any("% undecided" in (picture["alt"] or "") for picture in pictures)


@pytest.mark.parametrize(("gallery", "rows"), [(0, 0), (1, 1), (5, 5), (100, 8)])
def test_gallery_is_as_long_as_asked(
    inputs: dict[str, Path], tmp_path: Path, gallery: int, rows: int
) -> None:
    assert len(make_page({**inputs, "page": tmp_path / "page.html"}, gallery).all("article")) == rows


def test_choice_is_even() -> None:
    entries = [Entry(f"{i}", split, (), "", "", 1, 1) for split in ("train", "val") for i in range(10)]
    assert [e.image for e in choose(entries, 9)] == ["0", "2", "4", "6", "8", "0", "2", "5", "7"]


def test_masks_are_in_the_palette(inputs: dict[str, Path], page: Page) -> None:
    """The truth of the first row, decoded again, is the mask in the archive."""
    truth = next(p for p in page.all("img") if (p["alt"] or "").startswith("truth"))
    ids = np.asarray(Image.open(io.BytesIO(base64.b64decode((truth["src"] or "").split(",")[1]))))
    assert (ids == load_true_mask(Archive(inputs["images"]), "masks/0.png")).all()


def test_without_true_masks(tmp_path: Path) -> None:
    page = make_page(write_inputs(tmp_path, scored=False))
    assert "Nothing is scored on this page" in page.text
    assert page.text.count("not scored") == 3 and "mIoU" not in page.text
    assert len(page.all("svg", role="img")) == 3  # loss, learning rate, shares of source and target
    assert len(page.all("article")) == 4 and not page.all("table")


def test_same_inputs_same_bytes(inputs: dict[str, Path], tmp_path: Path) -> None:
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    for page in pages:
        make_page({**inputs, "page": page})
    assert pages[0].read_bytes() == pages[1].read_bytes()
