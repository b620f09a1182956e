"""The command review: a page to look through training masks and to decide about them."""

import argparse
from pathlib import Path

from plda.data.decisions import MASKS
from plda.reviewing.corrected import read_corrected
from plda.reviewing.run import Run
from plda.reviewing.session import Session
from plda.web import LOOPBACK, require_web, run_server

PORT = 8001


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the flags of the command: the arguments of `review`."""
    command.add_argument(
        "results", type=Path, metavar="RESULTS", help="folder of a finished run, such as results/main"
    )
    command.add_argument(
        "--review",
        type=Path,
        default=Path("review"),
        metavar="FOLDER",
        help="folder of the decisions, make_masks.review in params.yaml; created if it is missing "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--port", type=int, default=PORT, help="port of the page; 0: any free one (default: %(default)s)"
    )
    command.add_argument(
        "--masks",
        type=Path,
        metavar="PATH",
        help="accept masks that were corrected with another program, and exit: a folder of PNG files named "
        "like the images, with the ids of classes.txt, or a COCO JSON file",
    )


def review(results: Path, *, review: Path, port: int, masks: Path | None) -> None:
    """Look through the training masks of a run on a page, worst first, and accept, reject or correct them.

    plda review results/main

    Each decision is written into the folder `review` at once. `snakemake --cores all` then uses the
    decisions: it makes the masks again and trains the segmentation network on them.
    """
    run = Run(results)
    if masks:
        corrected = read_corrected(masks, run.data)
        Session(run, review).accept_all(corrected)
        print(f"{len(corrected)} masks copied to {review / MASKS} and accepted")
        return
    require_web("review")
    from plda.reviewing.app import make_app  # needs the optional packages

    run_server(make_app(Session(run, review)), LOOPBACK, port, "review")
