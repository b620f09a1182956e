"""The report page from small real inputs; every file has the format that the stages write."""

import base64
import html
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, small_params
from PIL import Image

import plda
from plda.data.data_set import DataSet, write_data_set
from plda.data.images import VOID, encode_image, encode_mask
from plda.data.index import Entry
from plda.errors import InputError
from plda.files import write_json, write_text
from plda.masks.cams import map_size, write_cams
from plda.masks.estimate import write_estimates
from plda.masks.folder import Masks, write_mask
from plda.params import Params
from plda.report.gallery import choose
from plda.report.page import background_alone, mistakes
from plda.scoring.confusion import Confusion
from plda.scoring.images import score_images
from plda.scoring.masks import CURVE, Scored, trimap
from plda.scoring.summary import (
    background_metrics,
    class_table,
    collect_metrics,
    curve_table,
    estimate_metrics,
    summarise,
)
from plda.sources.creatures import CLASSES, draw
from plda.stages.report import report

SIZE = 48
OBJECT = ("object_iou", "object_precision", "object_recall", "object_class")
VOID_ELEMENTS = {"meta", "img", "br", "path", "use", "rect", "input", "wbr"}
SCRIPT = ROOT / "plda" / "report" / "gallery.js.j2"
NASTY = "<script>alert('$x$')&.png"


class Page(HTMLParser):
    """A parsed page: elements with their attributes, and text; checks that every element is closed."""

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
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = attributes.items()
        return [found for name, found in self.elements if name == tag and wanted <= found.items()]


def write_inputs(folder: Path, *, scored: bool, train: int = 5, val: int = 3) -> dict[str, Path]:
    """Write the inputs of the stage: a few drawn scenes, half-right masks and their scores."""
    names = ("data_set", "cam_history", "cam_machine", "cams", "boundary_history",
             "pseudo_masks", "cam_metrics", "cam_class_scores", "seed_curve", "segmenter_history",
             "segmenter_machine", "predictions", "estimates", "metrics", "class_scores", "page",
             "backbone_origins")  # fmt: skip
    paths = {name: folder / name for name in names}
    machine = {"device": "abacus", "precision": "32", "system": "Linux", "python": "3", "torch": "2"}
    write_json(paths["cam_machine"], machine)
    write_json(paths["segmenter_machine"], machine)
    origins = {role: {"name": "resnet10", "from": "random numbers"} for role in ("cams", "segmenter")}
    origins["cams"] |= {"from": "timm's release", "repository": "timm/x", "licence": "apache-2.0"}
    write_json(paths["backbone_origins"], origins)
    entries, cams = [], []
    expected: dict[str, float] = {}
    files: list[dict[str, bytes]] = []
    kinds = ("seeds", "pamr", "pseudo_masks", "relabelled_masks", "predictions")
    sets = {name: Scored(Confusion(len(CLASSES)), Confusion(len(CLASSES)), None, {}) for name in kinds}
    for number in range(train + val):
        scene = draw(0, number, size=SIZE, body_cue=1.0, part_size=0.2)
        split = "train" if number < train else "val"
        name = f"{split}/{number} {NASTY if number == 0 else '.png'}"
        entry = Entry(
            f"images/{name}", split, scene.tags, f"masks/{number}.png" if scored else "", "", SIZE, SIZE
        )
        entries.append(entry)
        masks = {f"masks/{number}.png": encode_mask(scene.mask)}
        files.append({entry.image: encode_image(scene.image)} | masks)
        made = scene.mask.copy()
        made[:8], made[8:12] = 0, VOID
        if split == "train":
            cams.append((entry.key, torch.rand(len(scene.tags), *map_size(SIZE, SIZE))))
        else:
            expected[entry.key] = 90.0 - 7 * number
        write_mask(paths["pseudo_masks" if split == "train" else "predictions"], entry, made)
        for kind in kinds[:4] if split == "train" else kinds[4:]:
            if scored:
                sets[kind].everywhere.add(scene.mask, made)
                sets[kind].outlines.add(trimap(scene.mask, 3), made)
    write_data_set(paths["data_set"], CLASSES, zip(entries, files, strict=True))
    write_cams(paths["cams"], cams)
    curve = dict.fromkeys(CURVE, sets["seeds"].everywhere)
    background = {"seeds": 0.31, "pamr": 0.42, "pseudo_masks": 0.42}
    if scored:
        sets["seeds"] = sets["seeds"]._replace(parts={"telling": 0.77, "body": 0.11})
    predicted = {name: sets.pop(name) for name in ("relabelled_masks", "predictions")}
    scores = background_metrics(
        collect_metrics(sets), {"seeds": curve, "pamr": curve}, background, "Otsu's threshold"
    )
    write_json(paths["cam_metrics"], scores)
    of_image = {entry.key: 60.0 - number for number, entry in enumerate(entries)} if scored else {}
    write_json(paths["metrics"], collect_metrics(predicted) | estimate_metrics(expected, of_image))
    predictions = [entry for entry in entries if entry.key in expected]
    write_estimates(paths["estimates"], ((entry, expected[entry.key]) for entry in predictions))
    predicted.pop("relabelled_masks")
    for name, some in (("cam_class_scores", sets), ("class_scores", predicted)):
        table = class_table({kind: every.everywhere for kind, every in some.items()}, CLASSES)
        write_text(paths[name], table.to_csv(index=False))
    write_text(paths["seed_curve"], curve_table(curve).to_csv(index=False))
    history = pd.DataFrame({"epoch": [1, 2], "step": [3, 6], "lr": [1e-3, 1e-4], "loss": [0.7, 0.5]})
    domains = {"train_source": [9.0, 8.0], "train_target": [3.0, 4.0], "reversal": [0.2, 0.6]}
    measured = ("train_source", "train_target") if scored else ()
    precision = {f"{name}_precision": [60.0, 71.0] for name in measured}
    write_text(paths["cam_history"], history.assign(**domains, **precision).to_csv(index=False))
    write_text(paths["boundary_history"], "epoch,step,lr,loss\n")
    write_text(paths["segmenter_history"], history.to_csv(index=False))
    return paths


def make_page(paths: dict[str, Path], gallery: int = 4, worst: int = 0, **changes: Any) -> Page:
    small = {"make_masks__refinement": ["pamr"], "train_boundary__enabled": False}
    params = Params.model_validate(
        small_params(**small, report__gallery=gallery, report__worst=worst, **changes)
    )
    report(**paths, params=params)
    return Page(paths["page"].read_text())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("scored"), scored=True)


@pytest.fixture(scope="module")
def page(inputs: dict[str, Path]) -> Page:
    return make_page(inputs)


def test_page_shows_scores_and_classes(inputs: dict[str, Path], page: Page) -> None:
    metrics: dict[str, Any] = {}
    for name in ("cam_metrics", "metrics"):
        metrics |= json.loads(inputs[name].read_text())
    for name in ("seeds", "pamr", "pseudo_masks", "relabelled_masks", "predictions"):
        assert f"{metrics[name]['miou']:.1f}" in page.text
        assert f"{metrics[name]['miou_outlines']:.1f}" in page.text
        shape_and_class = [f"{metrics[name][key]:.1f}" for key in OBJECT]
        assert "".join(shape_and_class) in page.text  # four cells in a row
        assert f"| {' | '.join(shape_and_class)} |\n" in summarise(metrics)
    assert "after PAMR" in page.text and "after the random walk" not in page.text
    assert f"{metrics['pseudo_masks']['undecided']:.1f} % of the pixels undecided" in page.text
    assert "77.0" in page.text and "11.0" in page.text  # recall on telling parts and on bodies
    assert "scored on 5 training images" in page.text and "scored on 3 unseen images" in page.text
    assert "upper bound" in page.text and "Otsu's threshold" in page.text
    for name in CLASSES:
        assert page.text.count(name) >= 3  # chart, table, legend
    assert len(page.all("svg", role="img")) == 7
    (domains,) = (svg for svg in page.all("svg") if "source and target pixels" in str(svg["aria-label"]))
    assert "target, share of pixels 4 percent" in str(domains["aria-label"])
    assert "source, on their object 71 percent" in str(domains["aria-label"])
    assert "Nothing is scored" not in page.text


def test_page_shows_expected_iou(page: Page) -> None:
    assert "expected IoU 48.0, an estimate without true masks" in page.text
    assert "its rank correlation with the IoU of unseen images is 1.00" in page.text
    rows = page.all("article")
    assert [row["data-expected"] for row in rows] == ["55.0", "48.0", "", ""]
    assert all(row["data-score"] for row in rows)
    assert page.text.count("expected IoU 55") == 1
    assert [option["value"] for option in page.all("option")][-4:] == ["", "worst", "best", "unsure"]


def test_report_names_mask_without_estimate(inputs: dict[str, Path], tmp_path: Path) -> None:
    lines = inputs["estimates"].read_text().splitlines()
    (tmp_path / "estimates").write_text("\n".join(lines[:-1]))
    with pytest.raises(InputError, match=r"estimates: images/val/7 \.png: has a mask, but no row"):
        make_page({**inputs, "estimates": tmp_path / "estimates", "page": tmp_path / "page"})
    (tmp_path / "estimates").write_text("image\n")
    with pytest.raises(InputError, match="estimates: must be a table of image and expected_iou"):
        make_page({**inputs, "estimates": tmp_path / "estimates", "page": tmp_path / "page"})


def test_page_states_supervision_of_segmenter(inputs: dict[str, Path], page: Page) -> None:
    claims = ("made from tags, to train", "as if they were true", "never to train")
    assert all(claim in page.text for claim in claims)
    full = make_page(
        inputs | {"page": inputs["page"].with_name("full")}, train_segmenter__supervision="masks"
    )
    assert not any(claim in full.text for claim in claims)
    assert "is trained on the true masks of the training images" in full.text


def test_page_shows_training_of_boundary_network(inputs: dict[str, Path], page: Page, tmp_path: Path) -> None:
    assert "boundary network" not in str(page.all("svg"))
    history = {"boundary_history": inputs["segmenter_history"]}
    assert "boundary network from 0.7 to 0.5" in str(
        make_page(inputs | history | {"page": tmp_path / "p"}).all("svg")
    )


def test_page_has_no_external_resources(page: Page) -> None:
    assert not page.all("link")
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("data:image/", "#")), tag
        assert "url(h" not in (attributes.get("style") or "")
    assert not any(word in SCRIPT.read_text() for word in ("fetch(", "XMLHttpRequest", "import(", "http"))


def test_page_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_page_escapes_file_names(inputs: dict[str, Path], page: Page) -> None:
    assert f"train/0 {NASTY}" in page.text
    assert "<script>alert" not in inputs["page"].read_text()


def test_page_images_have_alt_text(page: Page) -> None:
    pictures = page.all("img")
    assert len(pictures) == 2 * 4 + 2 * 3  # train: no prediction; val: no heat map, no pseudo-mask
    assert all(picture["alt"] for picture in pictures)
    assert any("% undecided" in (picture["alt"] or "") for picture in pictures)


@pytest.mark.parametrize(("gallery", "rows"), [(0, 0), (1, 1), (5, 5), (100, 8)])
def test_gallery_has_requested_length(
    inputs: dict[str, Path], tmp_path: Path, gallery: int, rows: int
) -> None:
    assert len(make_page({**inputs, "page": tmp_path / "page.html"}, gallery).all("article")) == rows


def test_gallery_marks_worst_images(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The training image with the wrong pseudo-mask is not among the evenly spaced ones."""
    (spoilt,) = DataSet(inputs["data_set"]).training[4:]
    masks = tmp_path / "masks"
    shutil.copytree(inputs["pseudo_masks"], masks)
    write_mask(masks, spoilt, np.full((SIZE, SIZE), 1, np.uint8))
    paths = {**inputs, "pseudo_masks": masks, "page": tmp_path / "page.html"}
    assert "train/4" not in make_page(paths, 4).text
    page = make_page(paths, 4, worst=1)
    rows = page.all("article")
    assert "train/4" in page.text and len(rows) == 5 and page.text.count("among the worst") == 1
    scores = [float(row["data-score"] or "nan") for row in rows]
    assert scores[-1] == min(scores)  # rows of val come first


def test_choose_spreads_images_evenly() -> None:
    entries = [Entry(f"{i}", split, (), "", "", 1, 1) for split in ("train", "val") for i in range(10)]
    assert [e.image for e in choose(entries, 9)] == ["0", "2", "4", "6", "8", "0", "2", "5", "7"]


def test_captions_mention_small_objects(inputs: dict[str, Path], tmp_path: Path) -> None:
    (first,) = DataSet(inputs["data_set"]).split("val")[:1]
    masks = tmp_path / "masks"
    shutil.copytree(inputs["predictions"], masks)
    ids = np.zeros((SIZE, SIZE), np.uint8)
    for pixels, words in ((0, "prediction: background only"), (5, "<1 %"), (100, "4 %")):
        ids.flat[:pixels] = 1
        write_mask(masks, first, ids)
        text = make_page({**inputs, "predictions": masks, "page": tmp_path / "page.html"}, 2).text
        assert words in text and ("prediction: background only" in text) == (not pixels)


def test_page_masks_keep_class_ids(inputs: dict[str, Path], page: Page) -> None:
    """The decoded true mask of the first row, an unseen image, equals the mask in the archive."""
    truth = next(p for p in page.all("img") if (p["alt"] or "").startswith("truth"))
    ids = np.asarray(Image.open(io.BytesIO(base64.b64decode((truth["src"] or "").split(",")[1]))))
    data = DataSet(inputs["data_set"])
    assert (ids == data.true_mask(data.entries[5])).all()


def test_page_without_true_masks_shows_no_scores(tmp_path: Path) -> None:
    page = make_page(write_inputs(tmp_path, scored=False))
    assert "Nothing is scored on this page" in page.text
    assert page.text.count("not scored") == 3 and "mIoU" not in page.text
    assert "not scoredexpected IoU 48.0, an estimate without true masks" in page.text
    assert len(page.all("svg", role="img")) == 4  # loss, learning rate, source and target, reversal
    assert len(page.all("article")) == 4
    assert [option["value"] for option in page.all("option")][-2:] == ["", "unsure"]


def test_gallery_without_masks_ranks_by_expected_iou(tmp_path: Path) -> None:
    page = make_page(write_inputs(tmp_path, scored=False), 2, worst=2)
    rows = page.all("article")
    assert [row["data-expected"] for row in rows] == ["55.0", "41.0", ""]
    assert page.text.count("among the lowest") == 1 and "among the worst" not in page.text
    assert "the worst of the unseen images are those where it is lowest" in page.text


def test_page_describes_the_run(inputs: dict[str, Path], page: Page) -> None:
    assert "creatures, drawn by this project: 5 for training, 3 for validation" in page.text
    assert "abacus, 32 precision; Linux, Python 3, PyTorch 2" in page.text
    assert f"plda {plda.__version__}" in page.text and "seed 0" in page.text
    other = {**inputs, "page": inputs["page"].with_name("changed")}
    assert "deeplabv2 on resnet10" in make_page(other, train_segmenter__head="deeplabv2").text
    (shown,) = re.findall(r"<pre .*?>(.*?)</pre>", other["page"].read_text(), re.DOTALL)
    settings = yaml.safe_load(html.unescape(shown))
    assert settings["train_segmenter"] == small_params(train_segmenter__head="deeplabv2")["train_segmenter"]
    assert settings.keys() | {"compute"} == small_params().keys()


def test_mistakes_list_confused_classes() -> None:
    confusion = Confusion(3)
    confusion.counts[:] = [[80, 20, 0, 0], [50, 30, 20, 0], [0, 0, 90, 10]]
    assert mistakes(confusion, ["background", "cat", "dog"]) == [("cat", "dog", 20.0)]
    assert background_alone(confusion) == pytest.approx(100 / 3 / 3)


def test_score_images_matches_confusion_of_each_image(inputs: dict[str, Path]) -> None:
    data, mask_of = DataSet(inputs["data_set"]), Masks(inputs["pseudo_masks"])
    scores, total = score_images(data, data.training, mask_of)
    for entry in data.training:
        own = Confusion(len(CLASSES))
        own.add(data.true_mask(entry), mask_of(entry))
        assert scores[entry.key] == own.scores().mean()["miou"]
        total.counts -= own.counts
    assert not total.counts.any()


def test_report_is_deterministic(inputs: dict[str, Path], tmp_path: Path) -> None:
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    for page in pages:
        make_page({**inputs, "page": page})
    assert pages[0].read_bytes() == pages[1].read_bytes()
