"""The page of an ablation: repeats of each run as dots, differences to the baseline with intervals."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from plda.refinement.steps import AFTER
from plda.report import charts
from plda.report.page import template
from workflow.ablations import Ablations

SETS = {**charts.TITLES, **AFTER}
MEASURES = {
    "miou": "mIoU",
    "miou_outlines": "mIoU at outlines",
    "miou_decided": "mIoU on decided pixels",
    "precision": "precision",
    "recall": "recall",
    "recall_telling": "recall on telling parts",
    "recall_body": "recall on bodies",
    "object_iou": "IoU of object against background",
    "object_precision": "precision of object against background",
    "object_recall": "recall of object against background",
    "object_class": "object pixels with the right class",
    "object_share": "pixels labelled as object",
    "object_share_true": "pixels of true objects",
    "undecided": "undecided pixels",
}
FUNNEL = ("seeds.miou", "pseudo_masks.miou", "predictions.miou")


class Metric(NamedTuple):
    """One metric on the page: name, title in words, summary sentence, and charts (SVG)."""

    name: str
    title: str
    sentence: str
    levels: str
    differences: str | None


def render(
    table: pd.DataFrame,
    values: Mapping[str, Mapping[str, Mapping[str, float]]],
    ablations: Ablations,
    cells: tuple[Sequence[str], Sequence[Sequence[str]]],
    notes: Sequence[str],
) -> str:
    """Return the page as HTML; it needs no other file.

    Args:
        table: result of `workflow.ablation_table.compare`.
        values: values of each metric, by run and repeat.
        ablations: runs, repeats, metrics and the baseline.
        cells: table as text: titles of the columns, and one row per run.
        notes: sentences that explain the table.
    """
    rows = table.set_index(["metric", "run"])
    steps = {
        metric_title(name): {
            run: float(rows["mean"][name, run]) for run in ablations.runs if values[name][run]
        }
        for name in FUNNEL
        if name in ablations.metrics
    }
    full = None
    if ablations.full is not None and values.get(FUNNEL[-1], {}).get(ablations.full):
        full = float(rows["mean"][FUNNEL[-1], ablations.full])
    html: str = template("ablation_page.html.j2", "workflow").render(
        ablations=ablations,
        steps=charts.run_steps(steps, full) if sum(map(bool, steps.values())) > 1 else None,
        metrics=[
            _metric(name, table[table["metric"] == name].set_index("run"), values[name], ablations)
            for name in ablations.metrics
        ],
        head=cells[0],
        body=cells[1],
        written=_written,
        notes=notes,
    )
    return html


def metric_title(name: str) -> str:
    """Return a metric's name in words, if these are known: "mIoU, CAM seeds" for seeds.miou."""
    masks, _, measure = name.partition(".")
    if masks in SETS and measure in MEASURES:
        return f"{MEASURES[measure]}, {SETS[masks]}"
    return name


def _metric(
    name: str, rows: pd.DataFrame, values: Mapping[str, Mapping[str, float]], ablations: Ablations
) -> Metric:
    chart = re.sub(r"\W", "-", name)
    base = values[ablations.baseline]
    pairs = {
        run: [value - base[repeat] for repeat, value in own.items() if repeat in base]
        for run, own in values.items()
        if run != ablations.baseline
    }
    means = {
        str(run): (float(row["difference"]), float(row["low"]), float(row["high"]))
        for run, row in rows.iterrows()
    }
    return Metric(
        name,
        metric_title(name),
        _sentence(
            {run: means[run] for run, found in pairs.items() if found and run != ablations.full},
            ablations.baseline,
        ),
        charts.run_levels(f"levels-{chart}", {run: list(own.values()) for run, own in values.items()}),
        charts.run_differences(f"differences-{chart}", ablations.baseline, pairs, means)
        if any(pairs.values())
        else None,
    )


def _sentence(means: Mapping[str, tuple[float, float, float]], baseline: str) -> str:
    """Return a sentence about the run that is furthest above the baseline."""
    if not means:
        return f"Nothing to compare with {baseline}."
    run = max(means, key=lambda name: means[name][0])
    mean, low, high = means[run]
    if low != low:
        return f"The highest run is {run}, {mean:+.1f} against {baseline}; one pair cannot exclude chance."
    told = f"{mean:+.1f} against {baseline} (95 % interval {low:+.1f} to {high:+.1f})"
    if low > 0:
        return f"The highest run is {run}: {told}; the interval is above 0."
    return f"No run is significantly above {baseline}; the highest run is {run}: {told}."


def _written(value: Any) -> str:
    """Format a plain value as in YAML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
