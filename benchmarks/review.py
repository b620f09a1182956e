"""Measures the page of `plda review`: the time to the first picture, and of a decision.

    python benchmarks/review.py [--images 2000] [--decisions 20]

Training images are drawn, 64 x 48 pixels, half of them decided. Times are those of Chromium without a window,
from the request of the page until the first photo and its mask are decoded, and from a key until the next
image is. The start of the server is the time until it accepts requests, imports included.
"""

import statistics
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from chromium import launched  # noqa: E402
from reviewed import draw_run, reviewing  # noqa: E402

from plda.data.decisions import Decision, write_decisions  # noqa: E402

SHOWN = """before => !document.querySelector("#picture.loading")
    && document.querySelector("#name").innerText !== before"""


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--decisions", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, launched() as browser:
        folder = Path(temporary)
        names = draw_run(folder / "main", options.images)
        write_decisions(folder / "review", dict.fromkeys(names[::2], Decision("reject")))
        page = browser.new_page()
        start = time.perf_counter()
        with reviewing(folder / "main", folder / "review") as server:
            print(f"{options.images} images")
            print(f"  start of the server     {time.perf_counter() - start:6.2f} s")
            start = time.perf_counter()
            page.goto(server.url, wait_until="commit")
            page.wait_for_function(SHOWN, arg="")
            print(f"  page to first picture   {time.perf_counter() - start:6.2f} s")
            seconds = []
            for _ in range(options.decisions):
                name = page.locator("#name").inner_text()
                start = time.perf_counter()
                page.keyboard.press("a")
                page.wait_for_function(SHOWN, arg=name)
                seconds.append(time.perf_counter() - start)
            print(f"  key to next picture     {statistics.median(seconds):6.2f} s (median)")


if __name__ == "__main__":
    main()
