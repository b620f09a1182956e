"""At which epoch the baseline is best, run by run: after the runs of docs/ablations/creatures.yaml.

By one-scale seeds on the val images that are looked at after every epoch, true masks and all, which no run
that is scored may use: it favours the baseline. The epochs go into docs/ablations/stopped.yaml.
"""

from pathlib import Path

import pandas as pd
import yaml


def main() -> None:
    for repeat in yaml.safe_load(Path("ablations.yaml").read_text(encoding="utf-8"))["repeats"]:
        history = pd.read_csv(f"results/cam-{repeat}/train_cam/history.csv").set_index("epoch")
        scores = history["val_seeds"]
        best, last = scores.idxmax(), scores.index[-1]
        print(f"{repeat}: {scores[best]:.1f} after epoch {best}, {scores[last]:.1f} after {last}")


if __name__ == "__main__":
    main()
