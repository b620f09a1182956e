"""The table and the page of an ablation: the metrics of every run, and its differences to a baseline.

Two runs with the same repeat share its random choices (seed, data), so their difference varies less than the
values themselves. Differences are therefore taken in pairs, and their mean has a 95 % t-interval. If a run is
trained on true masks, the shares of its score that the other runs reach are computed in the same way.

    python -m workflow.ablation_table --table ablations.csv --summary ablations.md --page ablations.html
"""

import argparse
import json
import math
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from plda.changes import flat
from plda.errors import InputError
from plda.files import write_text
from workflow.ablation_page import render
from workflow.ablations import ABLATIONS, Ablations, full_name, read_ablations
from workflow.runs import compared, read_runs
from workflow.stages import DECLARATION, PARAMS

Scores = Mapping[str, Mapping[str, float]]  # metrics by full name of the run
SEGMENTATION = "predictions."  # prefix of the segmentation network's metrics


def read_metrics(files: Sequence[Path], names: Sequence[str]) -> dict[str, float]:
    """Return those of the metrics `names` that a run's JSON files contain; nested names are joined by dots.

    Raises:
        InputError: a file is missing or not JSON; a metric is in several files, or is not a number.
    """
    found: dict[str, float] = {}
    for file in files:
        try:
            values = flat(json.loads(file.read_bytes()))
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise InputError(f"{file}: is not JSON: {error}") from error
        for name in values.keys() & set(names):
            if name in found:
                raise InputError(f"{file}: {name}: is also in another metrics file of the run")
            if isinstance(values[name], bool) or not isinstance(values[name], int | float):
                raise InputError(f"{file}: {name}: must be a number, got {values[name]!r}")
            found[name] = values[name]
    return found


def compare(scores: Scores, ablations: Ablations) -> pd.DataFrame:
    """Return a table with one row per run and metric.

    Args:
        scores: metrics of each run, by its full name; metrics may be missing.
        ablations: runs, repeats, metrics, the baseline and the fully supervised run.

    Returns:
        Columns run, metric; n, mean, sd (sample standard deviation) over the repeats; pairs, difference (to
        the baseline, mean over the pairs), low, high (its 95 % t-interval), positive (pairs with a positive
        difference). If there is a fully supervised run, for metrics of the segmentation network: shares
        (pairs with that run), share (of its value, in percent, mean over these pairs), share_low, share_high
        (its 95 % t-interval). Empty: sd and intervals of fewer than two values, and a run against itself.
    """
    rows = []
    for run in ablations.runs:
        for metric in ablations.metrics:
            own = _by_repeat(scores, ablations, run, metric)
            base = (
                {} if run == ablations.baseline else _by_repeat(scores, ablations, ablations.baseline, metric)
            )
            differences = [own[repeat] - base[repeat] for repeat in own if repeat in base]
            mean, sd = mean_and_sd(list(own.values()))
            difference, low, high = mean_and_interval(differences)
            row = {
                "run": run,
                "metric": metric,
                "n": len(own),
                "mean": mean,
                "sd": sd,
                "pairs": len(differences),
                "difference": difference,
                "low": low,
                "high": high,
                "positive": sum(d > 0 for d in differences),
            }
            if ablations.full is not None:
                shared = metric in _shared(ablations) and run != ablations.full
                full = _by_repeat(scores, ablations, ablations.full, metric) if shared else {}
                shares = [100 * own[repeat] / full[repeat] for repeat in own if full.get(repeat)]
                share, low, high = mean_and_interval(shares)
                row |= {"shares": len(shares), "share": share, "share_low": low, "share_high": high}
            rows.append(row)
    return pd.DataFrame(rows)


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation; nan if there are too few values."""
    mean = float(np.mean(values)) if values else math.nan
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and the bounds of its 95 % t-interval; nan if there are too few values."""
    mean, sd = mean_and_sd(values)
    half = (
        float(stats.t.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
        if len(values) > 1
        else math.nan
    )
    return mean, mean - half, mean + half


def cells(table: pd.DataFrame, ablations: Ablations) -> tuple[list[str], list[list[str]]]:
    """Return the table as text: titles of the columns, and one row per run."""
    columns = {m: {m: _level, f"against {ablations.baseline}": _difference} for m in ablations.metrics}
    for metric in _shared(ablations):
        columns[metric][f"of {ablations.full}"] = _share
    head = ["run", *(title for titles in columns.values() for title in titles)]
    body = [
        [str(run)]
        + [cell(row) for row in rows.to_dict("records") for cell in columns[row["metric"]].values()]
        for run, rows in table.groupby("run", sort=False)
    ]
    return head, body


def summarise(table: pd.DataFrame, ablations: Ablations) -> str:
    """Return the table in Markdown, one row per run, and notes that explain it."""
    head, body = cells(table, ablations)
    lines = [_row(head), _row(["---", *["---:"] * (len(head) - 1)]), *map(_row, body)]
    return "\n".join([*lines, "", *notes(table, ablations)]) + "\n"


def notes(table: pd.DataFrame, ablations: Ablations) -> list[str]:
    """Return sentences that explain the table."""
    repeats = f"{len(ablations.repeats)} repeats" if len(ablations.repeats) > 1 else "1 repeat"
    lines = [
        f"Runs up to {ablations.until}, {repeats} ({', '.join(ablations.repeats)}): mean ± sample standard "
        f"deviation. Differences to {ablations.baseline} are taken repeat by repeat: mean [95 % t-interval] "
        "positive/pairs; fewer than 2 pairs have no interval."
    ]
    if _shared(ablations):
        lines.append(
            f"Column of {ablations.full}, which is trained on true masks: percent of its score, repeat by "
            "repeat, mean [95 % t-interval]."
        )
    nowhere = [m for m in ablations.metrics if not table.loc[table["metric"] == m, "n"].any()]
    if nowhere:
        lines.append(f"No run has these metrics: {', '.join(nowhere)}.")
    return lines


def page_of(table: pd.DataFrame, scores: Scores, ablations: Ablations) -> str:
    """Return the page with charts and numbers of `table`, which `compare` made from `scores`."""
    values = {
        metric: {run: _by_repeat(scores, ablations, run, metric) for run in ablations.runs}
        for metric in ablations.metrics
    }
    return render(table, values, ablations, cells(table, ablations), notes(table, ablations))


def _shared(ablations: Ablations) -> list[str]:
    """Return the metrics for which the share of full supervision is shown."""
    return [m for m in ablations.metrics if ablations.full is not None and m.startswith(SEGMENTATION)]


def _by_repeat(scores: Scores, ablations: Ablations, run: str, metric: str) -> dict[str, float]:
    found = {repeat: scores[full_name(run, repeat)].get(metric) for repeat in ablations.repeats}
    return {repeat: value for repeat, value in found.items() if value is not None}


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _level(row: Mapping[Hashable, Any]) -> str:
    if not row["n"]:
        return ""
    return f"{row['mean']:.1f}" + (f" ± {row['sd']:.1f}" if row["n"] > 1 else "")


def _difference(row: Mapping[Hashable, Any]) -> str:
    if not row["pairs"]:
        return ""
    interval = f" [{row['low']:+.1f}, {row['high']:+.1f}]" if row["pairs"] > 1 else ""
    return f"{row['difference']:+.1f}{interval} {row['positive']}/{row['pairs']}"


def _share(row: Mapping[Hashable, Any]) -> str:
    if not row["shares"]:
        return ""
    interval = f" [{row['share_low']:.1f}, {row['share_high']:.1f}]" if row["shares"] > 1 else ""
    return f"{row['share']:.1f} %{interval}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write and print the comparison; return the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m workflow.ablation_table", description="Compare the runs of ablations.yaml."
    )
    parser.add_argument("--table", type=Path, required=True, metavar="CSV", help="output: table for programs")
    parser.add_argument("--summary", type=Path, required=True, metavar="MD", help="output: table in Markdown")
    parser.add_argument("--page", type=Path, required=True, metavar="HTML", help="output: page with charts")
    options = parser.parse_args(arguments)
    try:
        ablations = read_ablations(ABLATIONS)
        runs = compared(read_runs(DECLARATION, PARAMS, ABLATIONS), ablations)
        scores = {
            run: read_metrics([Path(p) for s in stages.values() for p in s.metrics], ablations.metrics)
            for run, stages in runs.items()
        }
        table = compare(scores, ablations)
        write_text(options.table, table.round(4).to_csv(index=False))
        summary = summarise(table, ablations)
        write_text(options.summary, summary)
        write_text(options.page, page_of(table, scores, ablations))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
