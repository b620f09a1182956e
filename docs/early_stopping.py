"""PLDA against its baseline stopped at the best epoch: after the runs of docs/ablations/creatures.yaml.

Goes by the curves of the trainings: one-scale seeds of the images that are looked at after every epoch. The
epoch is chosen by the baseline's mIoU on val images, true masks and all, which favours the baseline; what is
compared is the mIoU on training images at that epoch, and PLDA's at its last.
"""

from pathlib import Path

import pandas as pd
import yaml


def history(run: str, repeat: str) -> pd.DataFrame:
    return pd.read_csv(f"results/{run}-{repeat}/train_cam/history.csv").set_index("epoch")


def main() -> None:
    gains = []
    print(
        "| repeat | baseline's best epoch | baseline there | baseline at the end | PLDA at the end | gain |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for repeat in yaml.safe_load(Path("ablations.yaml").read_text())["repeats"]:
        baseline, adapted = history("cam", repeat), history("plda", repeat)
        best = baseline["val_seeds"].idxmax()
        stopped, ended = baseline["train_seeds"][best], baseline["train_seeds"].iloc[-1]
        last = adapted["train_seeds"].iloc[-1]
        gains.append(last - stopped)
        print(f"| {repeat} | {best} | {stopped:.1f} | {ended:.1f} | {last:.1f} | {last - stopped:+.1f} |")
    values = pd.Series(gains)
    print(f"gain {values.mean():+.1f} ± {values.std():.1f}, {(values > 0).sum()} of {len(values)} positive")


if __name__ == "__main__":
    main()
