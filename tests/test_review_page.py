"""The page of `plda review` in the system's Chromium, used by keyboard and by mouse."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import CHROMIUM, MISSING
from playwright.sync_api import Browser, Page, Route, expect
from reviewed import CLASSES, NASTY, ROOT, Server, draw_run, mask_file, reviewing

from plda.data.decisions import Decision, read_decisions, write_decisions

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
COUNT = 60
PHONE = {"width": 360, "height": 740}
ACCEPT, REJECT, WRONG = Decision("accept"), Decision("reject"), Decision("wrong_class")


class Review(NamedTuple):
    """A running review: its server, its folder, and the images, worst first."""

    server: Server
    folder: Path
    names: list[str]

    def decisions(self) -> dict[str, Decision]:
        return read_decisions(self.folder, CLASSES)


@pytest.fixture(scope="module")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Review]:
    pytest.importorskip("fastapi")
    folder = tmp_path_factory.mktemp("page")
    names = draw_run(folder / "main", COUNT)
    with reviewing(folder / "main", folder / "review") as server:
        yield Review(server, folder / "review", names)


@pytest.fixture
def review(_running: Review) -> Review:
    """Return the review without decisions."""
    write_decisions(_running.folder, {})
    return _running


@pytest.fixture
def quiet(browser: Browser) -> Iterator[Page]:
    """Yield an empty page whose console messages fail the test."""
    said: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    page.close()
    assert said == []


@pytest.fixture
def page(quiet: Page, review: Review) -> Page:
    """Return the page of the review, with its first image."""
    quiet.goto(review.server.url)
    shows(quiet, review.names[0])
    return quiet


def shows(page: Page, name: str) -> None:
    """Wait until the page shows an image with its mask."""
    expect(page.locator("#name")).to_have_text(name)
    expect(page.locator("#picture")).not_to_have_class(re.compile("loading"))


def says(page: Page, text: str) -> None:
    expect(page.get_by_role("status")).to_contain_text(text)


def button(page: Page, name: str) -> None:
    page.get_by_role("button", name=re.compile(f"^{name}")).first.click()


def listed(page: Page) -> list[str]:
    """Return the names of the thumbnails."""
    return page.locator("#thumbnails img").evaluate_all("images => images.map(image => image.alt)")


def test_page_shows_worst_image_with_mask_and_facts(page: Page, review: Review) -> None:
    assert review.names[0] == "photo 0.png"
    assert page.locator("#photo").evaluate("it => it.naturalWidth") == 64
    assert page.locator("#overlay").evaluate("it => it.naturalWidth") == 64
    facts = page.locator("dd").all_inner_texts()
    assert facts == ["cat", "0.0 %", "undecided"]
    legend = page.get_by_role("list", name="Classes in the mask")
    assert legend.all_inner_texts()[0].split("\n") == ["background 78.4 %", "cat 19.5 %", "undecided 2.1 %"]
    colour = legend.locator(".swatch").nth(1).evaluate("it => getComputedStyle(it).backgroundColor")
    assert colour == "rgb(230, 159, 0)"
    expect(page.locator("#counts")).to_contain_text("0 of 60 decided")


def test_overlay_is_transparent_where_mask_is_background(page: Page) -> None:
    pixel = """it => {
        const context = new OffscreenCanvas(64, 48).getContext("2d", { willReadFrequently: true });
        context.drawImage(it, 0, 0);
        return [[30, 5], [30, 15], [30, 0]].map(place => [...context.getImageData(...place, 1, 1).data]);
    }"""
    background, cat, undecided = page.locator("#overlay").evaluate(pixel)
    assert background[3] == 0
    assert (cat, undecided) == ([230, 159, 0, 255], [240, 240, 240, 255])


def test_keys_decide_and_go_to_next_image(page: Page, review: Review) -> None:
    first, second, third, fourth, *_ = review.names
    for key, name, following in (("a", first, second), ("r", second, third), ("W", third, fourth)):
        page.keyboard.press(key)
        says(page, f"{name}: ")
        shows(page, following)
    assert review.decisions() == {first: ACCEPT, second: REJECT, third: WRONG}
    accepted = review.folder / "masks" / first
    assert accepted.read_bytes() == mask_file(0)
    expect(page.locator("#counts")).to_contain_text("3 of 60 decided (1 accepted, 1 rejected, 1 wrong class")


def test_buttons_decide(page: Page, review: Review) -> None:
    first, second, third, fourth, *_ = review.names
    for name, following in (("Accept", second), ("Reject", third), ("Wrong class", fourth)):
        button(page, name)
        shows(page, following)
    button(page, "Undo")
    shows(page, third)
    button(page, "Previous")
    shows(page, second)
    button(page, "Clear")
    says(page, f"{second}: undecided")
    assert review.decisions() == {first: ACCEPT}


def test_tags_editor_saves_with_enter(page: Page, review: Review) -> None:
    page.keyboard.press("t")
    editor = page.get_by_role("dialog")
    assert editor.get_by_role("checkbox").count() == 2
    expect(editor.get_by_label("cat")).to_be_checked()  # the given tag
    expect(editor.get_by_label("cat")).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("a")  # no shortcut here
    page.keyboard.press("Enter")
    shows(page, review.names[1])
    assert review.decisions() == {review.names[0]: Decision("tags", ("dog",))}
    page.keyboard.press("ArrowLeft")
    shows(page, review.names[0])
    expect(page.locator("#decision")).to_have_text("tags corrected: dog")
    page.keyboard.press("t")
    expect(editor.get_by_label("cat")).not_to_be_checked()
    page.keyboard.press("Escape")
    expect(editor).to_be_hidden()
    assert review.decisions() == {review.names[0]: Decision("tags", ("dog",))}


def test_undo_goes_back_after_reload(page: Page, review: Review) -> None:
    for name in review.names[1:3]:
        page.keyboard.press("r")
        shows(page, name)
    page.reload()
    shows(page, review.names[2])
    page.keyboard.press("u")
    shows(page, review.names[1])
    says(page, f"Undone. {review.names[1]}: undecided")
    page.keyboard.press("u")
    shows(page, review.names[0])
    assert review.decisions() == {}


def test_reload_shows_undecided_images_first(page: Page, review: Review) -> None:
    page.keyboard.press("r")
    shows(page, review.names[1])
    page.reload()
    shows(page, review.names[1])
    assert listed(page)[0] == review.names[1]
    expect(page.locator("#counts")).to_contain_text("1 of 60 decided")
    page.keyboard.press("ArrowLeft")
    says(page, "This is the first image")
    button(page, "Next page")
    assert listed(page)[-1] == review.names[0]
    expect(page.locator("#thumbnails li").last).to_contain_text("rejected")


def test_filters_select_images(page: Page, review: Review) -> None:
    page.keyboard.press("r")
    shows(page, review.names[1])
    button(page, "Decided 1")
    shows(page, review.names[0])
    assert listed(page) == [review.names[0]]
    button(page, "Undecided 59")
    shows(page, review.names[1])
    assert listed(page)[0] == review.names[1]
    page.keyboard.press("r")
    shows(page, review.names[2])
    assert listed(page)[0] == review.names[2]  # a decided image leaves the list
    for pressed in ("Decided 2", "All 60", "Undecided 58"):
        page.keyboard.press("f")
        expect(page.locator("#filters [aria-pressed=true]")).to_have_text(pressed)


def test_thumbnails_have_pages_and_open_images(page: Page, review: Review) -> None:
    assert listed(page) == review.names[:48]
    expect(page.get_by_role("button", name="Previous page")).to_be_disabled()
    button(page, "Next page")
    assert listed(page) == review.names[48:]
    last = page.locator("#thumbnails button").last
    last.click()
    shows(page, review.names[-1])
    expect(last).to_have_attribute("aria-current", "true")
    page.wait_for_function("document.querySelector('#thumbnails li:last-child img').naturalWidth > 0")
    page.keyboard.press("ArrowRight")
    says(page, "This is the last image")


def test_arrow_keys_go_over_pages(page: Page, review: Review) -> None:
    page.locator("#thumbnails button").nth(47).click()
    shows(page, review.names[47])
    page.keyboard.press("ArrowRight")
    shows(page, review.names[48])
    assert listed(page) == review.names[48:]


def test_mask_key_hides_mask_until_next_image(page: Page, review: Review) -> None:
    page.keyboard.press("m")
    expect(page.locator("#overlay")).to_be_hidden()
    expect(page.get_by_role("button", name="Mask")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("ArrowRight")
    shows(page, review.names[1])
    expect(page.locator("#overlay")).to_be_visible()


def test_mask_is_accepted_only_after_it_is_shown(page: Page, review: Review) -> None:
    waiting: list[Route] = []
    page.route("**/overlay*", lambda route: waiting.append(route))
    with page.expect_request("**/overlay*"):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("a")
    says(page, "Not accepted: the mask is not shown yet")
    waiting[0].continue_()
    shows(page, review.names[1])
    page.unroute("**/overlay*")
    page.keyboard.press("a")
    shows(page, review.names[2])
    assert review.decisions() == {review.names[1]: ACCEPT}


def test_held_key_decides_once(page: Page, review: Review) -> None:
    page.keyboard.down("r")
    shows(page, review.names[1])
    page.keyboard.down("r")  # what the keyboard repeats
    page.keyboard.up("r")
    page.keyboard.press("w")
    shows(page, review.names[2])
    assert review.decisions() == {review.names[0]: REJECT, review.names[1]: WRONG}


def test_page_shows_decisions_of_another_tab(page: Page, review: Review, browser: Browser) -> None:
    other = browser.new_page()
    other.goto(review.server.url)
    shows(other, review.names[0])
    other.keyboard.press("r")
    shows(other, review.names[1])
    other.close()
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(page.locator("#decision")).to_have_text("rejected")
    page.keyboard.press("ArrowRight")
    shows(page, review.names[1])
    page.keyboard.press("w")
    shows(page, review.names[2])
    assert review.decisions() == {review.names[0]: REJECT, review.names[1]: WRONG}


def test_page_says_what_is_not_saved(browser: Browser, review: Review) -> None:
    page = browser.new_page()
    page.goto(review.server.url)
    shows(page, review.names[0])
    page.route("**/decisions", lambda route: route.abort())
    page.keyboard.press("r")
    says(page, "Not done: the server does not answer: nothing is saved")
    expect(page.locator("#decision")).to_have_text("undecided")
    page.unroute("**/decisions")
    table = review.folder / "decisions.csv"
    table.write_text("image,decision,tags\nx.jpg,perhaps,\n", encoding="utf-8")
    page.keyboard.press("r")
    says(page, "decisions.csv: line 2: decision: must be one of accept")
    page.close()


def test_names_are_escaped(page: Page, review: Review) -> None:
    page.get_by_role("button", name=NASTY).click()
    shows(page, NASTY)
    page.keyboard.press("a")
    says(page, f"{NASTY}: accepted")
    assert review.decisions() == {NASTY: ACCEPT}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_passes_accessibility_check(page: Page, review: Review, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    for key, name in zip("arw", review.names[1:], strict=False):
        page.keyboard.press(key)
        shows(page, name)
    assert findings(page) == []
    page.keyboard.press("t")
    assert findings(page) == []


def test_page_fits_phone(page: Page, review: Review) -> None:
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    button(page, "Tags")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.get_by_role("dialog").get_by_label("dog").check()
    page.get_by_role("button", name="Save").click()
    shows(page, review.names[1])
    assert review.decisions() == {review.names[0]: Decision("tags", ("cat", "dog"))}
    assert findings(page) == []


def test_focus_is_visible(page: Page) -> None:
    page.keyboard.press("Tab")
    style = "getComputedStyle(document.activeElement)"
    assert page.evaluate(f"[{style}.outlineStyle, {style}.outlineWidth]") == ["solid", "3px"]


def test_benchmark_measures_times() -> None:
    pytest.importorskip("fastapi")
    command = [sys.executable, "benchmarks/review.py", "--images", "8", "--decisions", "2"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, encoding="utf-8").stdout
    for name in ("start of the server", "page to first picture", "key to next picture"):
        assert re.search(rf"{name} +\d+\.\d\d s", said)


def findings(page: Page) -> list[tuple[str, str, str]]:
    """Return the violations that axe-core finds: rule, impact, first element."""
    found = Axe().run(page).response["violations"]
    return [(rule["id"], rule["impact"], rule["nodes"][0]["html"]) for rule in found]
