"""Draws docs/gain.png, the gain of PLDA by the body cue, after the runs of docs/ablations/cue.yaml."""

import json
from pathlib import Path

import yaml
from matplotlib.figure import Figure

SHOWN = {"seeds.miou": "mIoU of the CAM seeds", "seeds.recall_body": "recall on bodies"}


def score(run: str, repeat: str, metric: str) -> float:
    metrics = json.loads(
        Path(f"results/{run}-{repeat}/evaluate_cams/metrics.json").read_text(encoding="utf-8")
    )
    masks, name = metric.split(".")
    return float(metrics[masks][name])


def main() -> None:
    repeats = yaml.safe_load(Path("ablations.yaml").read_text(encoding="utf-8"))["repeats"]
    cues = [100 * changes["index_data.creatures.body_cue"] for changes in repeats.values()]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 2), SHOWN.items(), strict=True):
        for run, colour, style in (("cam", "#808080", "s--"), ("plda", "#3d7de0", "o-")):
            scores = [score(run, repeat, metric) for repeat in repeats]
            axes.plot(cues, scores, style, color=colour, label={"cam": "baseline", "plda": "PLDA"}[run])
            print(
                f"{run:5} {metric:18}",
                *(f"{cue:.0f} %: {s:.1f} " for cue, s in zip(cues, scores, strict=True)),
            )
        axes.set(xlabel="class told from a body's hue, percent", ylabel=f"{title}, percent")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(Path(__file__).with_name("gain.png"), dpi=110)


if __name__ == "__main__":
    main()
