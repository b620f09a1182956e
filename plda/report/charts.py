"""Charts of the report pages, as SVG inside HTML, in the page's text colour (light or dark mode).

The same inputs give the same bytes. Values are in percent where the tables hold percent.
"""

import html
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

INK = "#010203"  # replaced by the page's text colour; no chart needs this colour itself
ACCENT = "#3d7de0"  # visible on white and on black
STYLES: Mapping[str, dict[str, Any]] = {
    "seeds": {"color": "#a0a0a0"},
    "pseudo_masks": {"color": "#68686e"},
    "predictions": {"color": ACCENT},
}
"""Greys and one blue: they differ in lightness, and no class has these colours."""
TRAININGS: Mapping[str, dict[str, Any]] = {
    "CAM network": {"lw": 4.0, **STYLES["seeds"]},
    "boundary network": {"lw": 2.5, "color": "#c2701c", "ls": "--"},
    "segmentation network": {"lw": 1.5, **STYLES["predictions"]},
}
"""Curves may be equal: a thin curve on top of a thick one shows both."""
LINES: Sequence[dict[str, Any]] = (
    {"color": ACCENT, "ls": "-"},
    {"color": "#8a8a8f", "ls": "--"},
    {"color": "#c2701c", "ls": "-."},
    {"color": "#2a8f6f", "ls": ":"},
    {"color": "#a8579a", "ls": (0, (6, 2, 1, 2, 1, 2))},
    {"color": "#8a8a8f", "ls": "-"},
)
"""Styles of several curves: the dashes differ too, for readers who cannot distinguish the colours."""
STEP_LOOKS: Sequence[dict[str, Any]] = (
    {"marker": "o", "mfc": "none", "mec": INK},
    {"marker": "s", "mfc": "#8a8a8f", "mec": INK},
    {"marker": "D", "mfc": ACCENT, "mec": ACCENT},
)
"""Markers of seeds, pseudo-masks and predictions in one row: they differ in shape."""
TITLES = {"seeds": "CAM seeds", "pseudo_masks": "pseudo-masks", "predictions": "segmentation"}

WIDTH = 4.2  # inches; narrow, so that the text stays readable on a phone
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "plda",
    "svg.fonttype": "none",  # keep text as text, in the page's font
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "grid.color"), INK),
    **{f"{axis}tick.color": INK for axis in "xy"},
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
}


def class_bars(table: pd.DataFrame, classes: Sequence[str]) -> str:
    """Draw the IoU of each class, one bar for each set of masks.

    Args:
        table: columns masks, class, iou (percent; nan if the class does not occur).
        classes: class names in the order of the bars.
    """
    scores = table.pivot(index="class", columns="masks", values="iou").reindex(list(classes))
    sets = [name for name in TITLES if name in scores]
    thickness = 0.8 / len(sets)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(0.7 + 0.13 * (len(sets) + 1) * len(classes))
        for place, name in enumerate(sets):
            y = [row + (place - (len(sets) - 1) / 2) * thickness for row in range(len(classes))]
            axes.barh(y, scores[name], thickness * 0.9, label=TITLES[name], **STYLES[name])
        # a `$` in a class name must not start a formula
        axes.set_yticks(range(len(classes)), [_short(c) for c in classes], parse_math=False)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labeltop=len(classes) > 20)  # a tall chart needs an axis at both ends
        axes.set(xlim=(0, 100), ylim=(len(classes) - 0.45, -0.55), xlabel="IoU in percent")
        axes.grid(axis="x")
        _legend(figure)
        return _svg(figure, "bars", f"Bars: IoU of {len(classes)} classes; the table has the numbers")


def funnel(steps: Sequence[tuple[str, float, bool]], trivial: float | None) -> str:
    """Draw a bar for each step, from the first masks to the last, with its mIoU and its gain.

    Args:
        steps: title, mIoU in percent, and whether the masks are those of the segmentation network.
        trivial: mIoU of all-background masks, on the images that the network is scored on.
    """
    told = []
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(0.75 + 0.42 * len(steps))
        before = None
        for row, (title, miou, is_network) in enumerate(steps):
            colour = ACCENT if is_network else STYLES["pseudo_masks"]["color"]
            axes.barh(row, miou, 0.72, color=colour)
            # the network is scored on other images, so its gain is unknown
            gain = "" if before is None or is_network else f"{miou - before:+.1f}"
            axes.text(miou + 1, row, f"{miou:.1f}", va="center", weight="bold")
            axes.text(miou + 13, row, gain, va="center", alpha=0.75)
            told.append(f"{title} {miou:.1f}".replace("\n", " "))
            before = miou
        if trivial is not None:
            axes.axvline(trivial, color=INK, lw=1, ls=(0, (4, 3)))
            axes.text(trivial, -0.62, f"all background: {trivial:.1f}", ha="center", va="bottom", size=8)
            told.append(f"all background {trivial:.1f}")
        axes.set_yticks(range(len(steps)), [title for title, *_ in steps])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 100), ylim=(len(steps) - 0.5, -0.6), xlabel="mIoU in percent: 100 is perfect")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        return _svg(figure, "funnel", f"Bars: mIoU of each step, in percent: {', '.join(told)}")


def seed_curve(curve: pd.DataFrame, used: Mapping[str, float], best: Mapping[str, float]) -> str:
    """Draw the mIoU of the seeds by background score.

    Args:
        curve: columns background_score and miou (percent).
        used: background_score and miou of the run's seeds.
        best: background_score and miou at the maximum of the curve.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(3.0)
        axes.plot(curve["background_score"], curve["miou"], **STYLES["seeds"])
        points = (("in use", used, ACCENT, "o"), ("best of those tried", best, "none", "D"))
        for label, point, fill, marker in points:
            x, y = point["background_score"], point["miou"]
            edge = INK if fill == "none" else fill
            style: dict[str, Any] = {"marker": marker, "ls": "", "mfc": fill, "mec": edge, "ms": 7}
            axes.plot([x], [y], label=f"{label}: {y:.1f} at {x:.2f}", zorder=3, **style)
        axes.axvline(used["background_score"], color=ACCENT, lw=1, ls=":")
        axes.set(xlim=(0, 1), xlabel="background score", ylabel="mIoU in percent")
        axes.set_ylim(0, 1.1 * max(curve["miou"].max(), used["miou"]) + 1)
        axes.grid()
        _legend(figure)
        text = "; ".join(f"{p['miou']:.1f} percent at {p['background_score']:.2f}, {label}"
                         for label, p, *_ in points)  # fmt: skip
        return _svg(figure, "seeds", f"Curve: mIoU of the CAM seeds by background score; {text}")


def epoch_curves(column: str, title: str, histories: Mapping[str, pd.DataFrame]) -> str:
    """Draw one column of several training histories by epoch.

    Args:
        column: name of the column.
        title: label of the vertical axis.
        histories: training history of each network, by its name in `TRAININGS`.
    """
    ends = []
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(2.6)
        for name, table in histories.items():
            marker = "o" if len(table) < 20 else ""
            axes.plot(table["epoch"], table[column], marker=marker, ms=4, label=name, **TRAININGS[name])
            ends.append(f"{name} from {table[column].iloc[0]:.3g} to {table[column].iloc[-1]:.3g}")
        axes.set(ylabel=title)
        axes.set_ylim(bottom=0)
        _epochs(axes, max(table["epoch"].max() for table in histories.values()))
        _legend(figure, columns=2)
        return _svg(figure, column, f"Curves: {title} by epoch; {', '.join(ends)}")


def curves(
    name: str, title: str, history: pd.DataFrame, columns: Mapping[str, str], *, log: bool = False
) -> str:
    """Draw several columns of one training history by epoch.

    Args:
        name: name of the chart, one word.
        title: label of the vertical axis.
        history: training history; columns that it lacks are skipped.
        columns: label of each column, by its name.
        log: use a logarithmic axis, which shows only values above 0.
    """
    ends = []
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(2.6)
        there = [column for column in columns if column in history]
        for column, style in zip(there, LINES, strict=False):
            values = history[column].where(history[column] > 0) if log else history[column]
            marker = "o" if len(history) < 20 else ""
            axes.plot(history["epoch"], values, marker=marker, ms=4, label=columns[column], **style)
            ends.append(
                f"{columns[column]} from {history[column].iloc[0]:.3g} to {history[column].iloc[-1]:.3g}"
            )
        axes.set(ylabel=title)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(bottom=0 if history[there].min().min() >= 0 else None)
        _epochs(axes, history["epoch"].max())
        _legend(figure)
        return _svg(figure, name, f"Curves: {title} by epoch; {', '.join(ends)}")


def domain_curves(history: pd.DataFrame) -> str:
    """Draw the share of source and target pixels in the inspected training images by epoch.

    Args:
        history: columns epoch, train_source and train_target; if true masks exist, also
            train_source_precision and train_target_precision; all in percent.
    """
    ends = []
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(3.0)
        for domain, colour in (("source", ACCENT), ("target", STYLES["seeds"]["color"])):
            for column, label, dashes in (
                (f"train_{domain}", f"{domain}, share of pixels", "-"),
                (f"train_{domain}_precision", f"{domain}, on their object", "--"),
            ):
                if column in history:
                    axes.plot(history["epoch"], history[column], dashes, color=colour, label=label)
                    ends.append(f"{label} {history[column].iloc[-1]:.0f} percent at the end")
        axes.set(ylabel="percent", ylim=(0, 100))
        _epochs(axes, history["epoch"].max())
        _legend(figure, columns=2)
        return _svg(figure, "domains", f"Curves: source and target pixels by epoch; {', '.join(ends)}")


def run_levels(name: str, values: Mapping[str, Sequence[float]]) -> str:
    """Draw a metric of several runs: one dot for each repeat, one bar at their mean.

    Args:
        name: name of the chart, one word.
        values: values of each run, by its name; a run may have no values.
    """
    told = []
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(_height(values))
        for row, (run, found) in enumerate(values.items()):
            axes.plot(found, [row] * len(found), "o", color=STYLES["seeds"]["color"], ms=6, alpha=0.75)
            if found:
                mean = sum(found) / len(found)
                axes.plot([mean], [row], "|", color=ACCENT, ms=16, mew=3)
                _beside(axes, row, f"{mean:.1f}")
                told.append(f"{run} {mean:.1f}")
        _rows(axes, list(values))
        axes.margins(x=0.08)
        axes.set(xlabel="repeats and their mean")
        return _svg(figure, name, f"Dots: each run's repeats; means: {', '.join(told)}")


def run_differences(
    name: str,
    baseline: str,
    values: Mapping[str, Sequence[float]],
    means: Mapping[str, tuple[float, float, float]],
) -> str:
    """Draw the differences of several runs to a baseline: one dot for each pair, their mean and its interval.

    Args:
        name: name of the chart, one word.
        baseline: name of the run that the others are compared with.
        values: differences of each other run, by its name; a run may have none.
        means: mean, lower and upper bound of each of these runs; nan where unknown.
    """
    told = []
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(_height(values))
        axes.axvline(0, color=INK, lw=1)
        for row, (run, found) in enumerate(values.items()):
            mean, low, high = means[run]
            if not found:
                continue
            known = low == low
            sure = known and (low > 0 or high < 0)
            if known:
                axes.plot([low, high], [row, row], color=ACCENT, lw=2.5, solid_capstyle="butt", zorder=2)
            axes.plot(found, [row + 0.24] * len(found), "o", color=STYLES["seeds"]["color"], ms=4, alpha=0.8)
            fill = ACCENT if sure else "none"
            axes.plot([mean], [row], "D", mfc=fill, mec=ACCENT, mew=1.5, ms=7, zorder=3)
            _beside(axes, row, f"{mean:+.1f}")
            told.append(f"{run} {mean:+.1f}" + (f" from {low:+.1f} to {high:+.1f}" if known else ""))
        _rows(axes, list(values))
        axes.margins(x=0.08)
        axes.set(xlabel=f"difference to {baseline}: pairs, mean, 95 % interval")
        return _svg(figure, name, f"Dots and intervals: differences to {baseline}: {', '.join(told)}")


def run_steps(steps: Mapping[str, Mapping[str, float]], full: float | None) -> str:
    """Draw the mIoU of several runs from seeds to predictions.

    Args:
        steps: mIoU by title of the step and name of the run; a run may be missing.
        full: mIoU of the predictions of a network that was trained on true masks.
    """
    runs = list(dict.fromkeys(run for found in steps.values() for run in found))
    told = []
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(_height(runs) + 0.3)
        for row, run in enumerate(runs):
            own = {title: found[run] for title, found in steps.items() if run in found}
            axes.plot(list(own.values()), [row] * len(own), color=STYLES["seeds"]["color"], lw=2, zorder=1)
            told.append(f"{run}: {', '.join(f'{title} {value:.1f}' for title, value in own.items())}")
        for (title, found), look in zip(steps.items(), STEP_LOOKS, strict=False):
            rows = [runs.index(run) for run in found]
            axes.plot(list(found.values()), rows, ls="", ms=7, label=title, **look)
        if full is not None:
            axes.axvline(full, color=ACCENT, ls=(0, (4, 3)), label="segmentation from true masks")
            told.append(f"segmentation from true masks: {full:.1f}")
        _rows(axes, runs)
        axes.margins(x=0.08)
        axes.set(xlabel="mIoU in percent, mean over the repeats")
        _legend(figure, columns=2)
        return _svg(figure, "run-steps", f"Dots: mIoU of each step; {'; '.join(told)}")


def _height(rows: Iterable[str]) -> float:
    return 0.75 + 0.36 * len(list(rows))


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Give the vertical axis one row for each name, the first on top."""
    axes.set_yticks(range(len(names)), [_short(name, 24) for name in names], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid()
    axes.set_axisbelow(True)


def _beside(axes: Axes, row: int, text: str) -> None:
    """Write a number at the right edge of a row."""
    axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", weight="bold")


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _epochs(axes: Axes, last: int) -> None:
    """Make the horizontal axis count epochs, 1 to `last`."""
    axes.set(xlabel="epoch", xlim=(0.5, last + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid()


def _legend(figure: Figure, columns: int = 3) -> None:
    figure.legend(loc="outside upper left", ncols=columns, columnspacing=1.2, borderpad=0.2)


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _svg(figure: Figure, name: str, alt: str) -> str:
    """Return the figure as an <svg> element; the prefix `name` makes its ids unique on the page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with warnings.catch_warnings():
        # text stays text: the browser's fonts, not matplotlib's, decide which characters can be shown
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    for reference in ('id="', 'href="#', "url(#"):
        svg = svg.replace(reference, f"{reference}{name}-")
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)
