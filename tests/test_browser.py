"""The report page in the system's Chromium, used by mouse and by keyboard."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import CHROMIUM, MISSING
from conftest import ROOT
from playwright.sync_api import Browser, Page
from test_report import make_page, write_inputs

from workflow.ablation_table import compare, page_of
from workflow.ablations import full_name, read_ablations

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
TRAIN, VAL = 15, 4
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    paths = write_inputs(tmp_path_factory.mktemp("page"), scored=True, train=TRAIN, val=VAL)
    make_page(paths, gallery=2 * TRAIN, worst=4)
    return paths["page"].rename(paths["page"].with_suffix(".html"))


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    """Yield the page, opened from disk; console messages and network requests fail the test."""
    said: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto(file.as_uri())
    yield page
    page.close()
    assert said == []


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    ablations = read_ablations(ROOT / "ablations.yaml")
    scores = {
        full_name(run, repeat): dict.fromkeys(ablations.metrics, 10.0 * i + j * (j + i))
        for i, run in enumerate(ablations.runs)
        for j, repeat in enumerate(ablations.repeats)
    }
    (folder / "ablations.html").write_text(page_of(compare(scores, ablations), scores, ablations))
    return folder / "ablations.html"


def visible(page: Page, attribute: str) -> list[str]:
    """Return an attribute of each visible image, in display order."""
    rows = page.locator("article:visible").all()
    return [row.get_attribute(attribute) or "" for row in rows]


def training_images(page: Page) -> None:
    page.get_by_role("button", name="Training images").click()


def test_gallery_shows_unseen_images_first(page: Page) -> None:
    assert len(visible(page, "class")) == VAL
    assert page.get_by_role("status").inner_text() == f"{VAL} of {VAL} images shown"
    assert not page.get_by_role("button", name="more").is_visible()


def test_gallery_shows_more_images_on_demand(page: Page) -> None:
    training_images(page)
    assert len(visible(page, "class")) == 12
    page.get_by_role("button", name="Show 3 more").click()
    assert len(visible(page, "class")) == TRAIN
    focused = page.evaluate("[...document.activeElement.parentNode.children].indexOf(document.activeElement)")
    assert focused == 12  # the focus moves to the first new image


def test_gallery_sorts_by_iou(page: Page) -> None:
    training_images(page)
    before = visible(page, "data-score")
    for label, downwards in (("worst first", False), ("best first", True)):
        page.get_by_label("Order").select_option(
            label=f"{label} ({'highest' if downwards else 'lowest'} IoU)"
        )
        scores = [float(score) for score in visible(page, "data-score")]
        assert scores == sorted(scores, reverse=downwards) and len(scores) == 12
    page.get_by_role("button", name="Unseen images").click()
    page.get_by_label("Order").select_option(label="lowest expected IoU first")
    expected = [float(value) for value in visible(page, "data-expected")]
    assert expected == sorted(expected) and len(expected) == VAL
    training_images(page)
    page.get_by_label("Order").select_option(label="as in the data set")
    assert visible(page, "data-score") == before


def test_gallery_filters_by_class(page: Page) -> None:
    training_images(page)
    every = [
        row.get_attribute("data-classes") or "" for row in page.locator("[data-split=train] article").all()
    ]
    page.get_by_label("With the tag").select_option(label="cat")
    chosen = page.get_by_label("With the tag").input_value()
    shown = visible(page, "data-classes")
    assert all(chosen in tags.split() for tags in shown)
    assert len(shown) == sum(chosen in tags.split() for tags in every) < len(every)


def test_slider_works_by_keyboard_and_by_button(page: Page) -> None:
    training_images(page)
    page.get_by_role("button", name="one over another").click()
    slider = page.get_by_role("slider", name="Which picture lies on top")
    slider.focus()

    def opacity(layer: int) -> float:
        picture = page.locator(f"article:visible figure[data-layer='{layer}'] img").first
        return float(picture.evaluate("picture => getComputedStyle(picture).opacity"))

    assert [opacity(layer) for layer in range(4)] == [1, 0, 0, 0]
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "between image and heat map"
    assert [opacity(layer) for layer in range(4)] == [1, 0.5, 0, 0]
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "truth"
    assert [opacity(layer) for layer in range(4)] == [1, 1, 1, 1]
    page.get_by_role("button", name="pseudo-mask", exact=True).click()
    assert slider.input_value() == "2" and opacity(3) == 0
    captions = page.locator("article:visible").first.locator("figcaption:visible")
    assert captions.count() == 1 and captions.inner_text().startswith("pseudo-mask")


def test_gallery_shows_all_images_without_scripts(browser: Browser, file: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(file.as_uri())
    assert page.locator("article:visible").count() == TRAIN + VAL
    assert not page.locator(".tools").is_visible()
    page.close()


def test_page_fits_phone_width(page: Page) -> None:
    page.set_viewport_size(PHONE)
    for view in ("side by side", "one over another"):
        page.get_by_role("button", name=view).click()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["side by side", "one over another"])
def test_page_passes_accessibility_check(page: Page, scheme: str, view: str) -> None:
    """axe-core finds no violations."""
    page.emulate_media(color_scheme=scheme)
    page.get_by_role("button", name=view).click()
    for summary in page.locator("summary").all():
        summary.click()
    assert findings(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_comparison_page_passes_accessibility_check(page: Page, comparison: Path, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    page.goto(comparison.as_uri())
    assert findings(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def findings(page: Page) -> list[tuple[str, str, str]]:
    """Return the violations that axe-core finds: rule, impact, first element."""
    found = Axe().run(page).response["violations"]
    return [(rule["id"], rule["impact"], rule["nodes"][0]["html"]) for rule in found]
