"""Ablation runs: shared stages, error messages, statistics and a small end-to-end comparison."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, TRAINER, write_params
from test_engines import Tree

from plda.errors import InputError
from plda.params import read_params
from plda.yaml_file import read_yaml
from workflow import ablation_table
from workflow import ablations as ablations_module
from workflow.ablation_table import compare, mean_and_interval, mean_and_sd, page_of, read_metrics, summarise
from workflow.ablations import Ablations, read_ablations, read_params_of_runs
from workflow.experiments import Git, keep, run_files
from workflow.experiments import main as keep_all
from workflow.runs import read_runs
from workflow.stages import Stage

AFTER_CAMS = [
    "train_cam",
    "infer_cams",
    "train_boundary",
    "make_masks",
    "evaluate_cams",
    "relabel_masks",
    "train_segmenter",
    "predict_masks",
    "evaluate",
]
STUDIES = sorted(path.stem for path in (ROOT / "docs/ablations").glob("*.yaml"))
SMALL: dict[str, Any] = {
    "until": "evaluate",
    "baseline": "a",
    "metrics": ["seeds.miou"],
    "repeats": {"r": {}},
    "common": {},
    "runs": {"a": {}},
}


def write_ablations(folder: Path, **fields: Any) -> Path:
    path = folder / "ablations.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **fields}, sort_keys=False))
    return path


def runs_of(folder: Path, params: dict[str, Any] | None = None, **fields: Any) -> dict[str, dict[str, Stage]]:
    params_file = write_params(folder / "params.yaml", **(params or {}))
    return read_runs(ROOT / "dvc.yaml", params_file, write_ablations(folder, **fields))


def own(runs: dict[str, dict[str, Stage]], run: str) -> set[str]:
    """Return the stages that a run executes itself."""
    return {name for name, stage in runs[run].items() if stage.run == run}


@pytest.mark.parametrize("file", ["ablations.yaml", *(f"docs/ablations/{name}.yaml" for name in STUDIES)])
def test_shipped_ablations_fit_shipped_params(file: str) -> None:
    files = ROOT / "dvc.yaml", ROOT / "params.yaml", ROOT / file
    runs = read_runs(*files)
    assert list(runs) == ["main", *read_ablations(files[2]).full_names()]
    for stages in runs.values():
        outputs = {path for stage in stages.values() for path in stage.outputs}
        for name, stage in stages.items():
            assert stage == runs[stage.run][name]
            data = {path for path in stage.inputs if path.startswith("results/")}
            assert data <= outputs
            assert all(path in stage.command for path in data | set(stage.outputs))
            assert "results/main" in stage.command or stage.run != "main"


def test_runs_equal_to_main_share_all_stages(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, runs={"a": {"train_cam.head_lr_factor": 1}})  # 1.0 in params.yaml
    assert runs["a-r"] == runs["main"]


def test_runs_with_other_segmenter_share_cam_stages(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, runs={"a": {}, "b": {"train_segmenter.epochs": 3}})
    assert own(runs, "b-r") == {"train_segmenter", "predict_masks", "evaluate", "report"}
    stage = runs["b-r"]["train_segmenter"]
    assert stage.settings["train_segmenter"]["epochs"] == 3
    assert stage.command.startswith(
        "python -m workflow.ablations b-r --params results/b-r/params.yaml && "
        "python -m plda train_segmenter --params results/b-r/params.yaml "
        "--data-set results/main/index_data/data_set "
    )
    assert "results/main/relabel_masks/masks" in stage.inputs
    assert stage.outputs == (
        "results/b-r/train_segmenter/network.pt",
        "results/b-r/train_segmenter/machine.json",
        "results/b-r/train_segmenter/history.csv",
    )
    metrics = runs["b-r"]["evaluate"].metrics
    assert metrics == ("results/b-r/evaluate/metrics.json",)
    assert "--class-scores results/b-r/evaluate/classes.csv " in runs["b-r"]["report"].command


def test_runs_with_full_supervision_share_earlier_stages(tmp_path: Path) -> None:
    full = {"train_segmenter.supervision": "masks"}
    runs = runs_of(tmp_path, full="full", baseline="weak", runs={"weak": {}, "full": full})
    assert own(runs, "full-r") == {"train_segmenter", "predict_masks", "evaluate", "report"}


def test_runs_with_other_data_share_only_downloads(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, runs={"a": {}, "b": {"index_data.creatures.seed": 7}})
    assert own(runs, "b-r") == set(runs["main"]) - {"download_data", "download_backbone"}


def test_runs_share_stages_with_each_other(tmp_path: Path) -> None:
    adapted = {"train_cam.adaptation.enabled": False}
    late = {**adapted, "make_masks.refinement": []}
    runs = runs_of(tmp_path, runs={"a": {}, "b": adapted, "c": late, "d": {**late, "seed": 5}})
    assert own(runs, "b-r") == {*AFTER_CAMS, "report"}
    assert own(runs, "c-r") == {*AFTER_CAMS, "report"} - {"train_cam", "infer_cams", "train_boundary"}
    assert runs["c-r"]["infer_cams"] == runs["b-r"]["infer_cams"]
    assert "results/b-r/infer_cams/cams.npz" in runs["c-r"]["make_masks"].inputs
    assert own(runs, "d-r") == {*AFTER_CAMS, "report", "download_backbone"}  # equal settings are not enough


def test_common_changes_apply_to_all_runs_except_main(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, common={"train_cam.epochs": 3}, runs={"a": {}, "b": {"train_cam.epochs": 4}})
    epochs = {run: stages["train_cam"].settings["train_cam"]["epochs"] for run, stages in runs.items()}
    assert epochs == {"main": 2, "a-r": 3, "b-r": 4}


def test_runs_keep_the_photo_folder_path(tmp_path: Path) -> None:
    folder = "results/main/index_data/photos {x}"
    changes = {"source": "folder", "index_data.folder": folder}
    stage = runs_of(tmp_path, runs={"a": changes})["a-r"]["index_data"]
    assert stage.given == (folder,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"until": "train"}, "until: 'train' is not a stage of dvc.yaml: download_data, "),
        ({"baseline": "b"}, "baseline: must be one of the runs, got 'b'"),
        ({"full": "b"}, "full: must be one of the runs, got 'b'"),
        ({"full": "a"}, "full: a must set train_segmenter.supervision: masks"),
        ({"metrics": []}, "metrics: list should have at least 1 item"),
        ({"metrics": "seeds.miou"}, "metrics: input should be a valid list"),
        ({"repeats": {}}, "repeats: dictionary should have at least 1 item"),
        ({"runs": {}}, "runs: dictionary should have at least 1 item"),
        ({"runs": {"a": None}}, "runs.a: must be a section with keys and values, got None"),
        ({"runs": {"a": {}, "b c": {}}}, "runs.b c: string should match pattern"),
        ({"runs": {"a": {}, "../b": {}}}, "runs.../b: string should match pattern"),
        ({"runs": {"a": {}, 1: {}}}, "runs.1: must be text; put the key in quotes"),
        ({"runs": {"a": {}, "main": {}}}, "runs.main: the name is reserved for params.yaml"),
        ({"runs": {"a": {}, "a-r": {}}, "repeats": {"r": {}, "r-r": {}}}, "runs have the same name a-r-r"),
        ({"commom": {}}, "commom: unknown key"),
        (
            {"runs": {"a": {"train_cam.adaptation.enabld": True}}},
            "runs.a.train_cam.adaptation.enabld: no such value in params.yaml",
        ),
        ({"runs": {"a": {"seed.x": 1}}}, "runs.a.seed.x: no such value in params.yaml"),
        ({"common": {"epochs": 3}}, "common.epochs: no such value in params.yaml"),
        ({"repeats": {"r": {"sed": 1}}}, "repeats.r.sed: no such value in params.yaml"),
        (
            {"runs": {"a": {"train_cam.adaptation": {}}}},
            "runs.a.train_cam.adaptation: must be a value, got a section",
        ),
        (
            {"runs": {"a": {"train_cam.lr": "fast"}}},
            "run a-r: train_cam.lr: input should be a valid number, got 'fast'",
        ),
        ({"runs": {"a": {"train_cam.epochs": 0}}}, "run a-r: train_cam.epochs: input should be greater than"),
        ({"runs": {"a": {"seed": 1}}, "repeats": {"r": {"seed": 2}}}, "runs.a.seed: repeats.r also sets it"),
        ({"common": {"seed": 1}, "repeats": {"r": {"seed": 2}}}, "common.seed: repeats.r also sets it"),
        (
            {"repeats": {"r": {}, "s": {"seed": 0}}},
            "repeats.s: up to evaluate, run a is identical to that with r; remove one of the two repeats",
        ),
    ],
)
def test_ablations_reject_invalid_fields(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        runs_of(tmp_path, **fields)
    assert str(error.value).startswith(f"{tmp_path}/ablations.yaml: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("a: [", "line 1: is not YAML"), ("", "must hold keys")],
)
def test_read_ablations_rejects_unreadable_file(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "ablations.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=re.escape(f"{path}: {message}")):
        read_ablations(path)


def test_ablations_write_complete_params_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {"a": {"train_cam.lr": 1e-05, "infer_cams.scales": [0.5, 2.0]}}
    runs_of(tmp_path, runs=runs)
    monkeypatch.chdir(tmp_path)
    assert ablations_module.main(["a-r", "--params", "results/a-r/params.yaml"]) == 0
    written = tmp_path / "results/a-r/params.yaml"
    params = read_params(written)
    assert (params.train_cam.lr, params.infer_cams.scales) == (1e-05, [0.5, 2.0])
    of_runs = read_params_of_runs(tmp_path / "params.yaml", tmp_path / "ablations.yaml")
    assert read_yaml(written) == of_runs["a-r"]
    assert ablations_module.main(["b-r", "--params", "x.yaml"]) == 2
    assert capsys.readouterr().err == "ablations.yaml: has no run b-r\n"


def test_mean_and_interval_match_manual_values() -> None:
    assert mean_and_sd([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt(7)))
    half = 4.302653 * math.sqrt(7) / math.sqrt(3)  # Student's t, 2 degrees of freedom, 97.5 %
    assert mean_and_interval([1.0, 2.0, 6.0]) == pytest.approx((3.0, 3 - half, 3 + half), abs=1e-5)
    assert mean_and_interval([1.0, 3.0]) == pytest.approx((2.0, 2 - 12.7062, 2 + 12.7062), abs=1e-4)
    np.testing.assert_equal(mean_and_interval([1.5]), (1.5, math.nan, math.nan))
    np.testing.assert_equal(mean_and_interval([]), (math.nan, math.nan, math.nan))


@pytest.fixture
def comparison(tmp_path: Path) -> Ablations:
    repeats = {name: {"seed": i} for i, name in enumerate("rst")}
    runs = {"a": {}, "b": {"train_cam.epochs": 3}}
    return read_ablations(write_ablations(tmp_path, metrics=["m", "k.n"], repeats=repeats, runs=runs))


def test_compare_takes_differences_in_pairs(comparison: Ablations) -> None:
    scores = {
        "a-r": {"m": 10.0}, "a-s": {"m": 20.0}, "a-t": {"m": 30.0},
        "b-r": {"m": 11.0}, "b-s": {"m": 22.0}, "b-t": {},
    }  # fmt: skip
    table = compare(scores, comparison)
    assert list(table["run"]) == ["a", "a", "b", "b"]
    a, _, b, nothing = table.to_dict("records")
    assert (a["n"], a["mean"], a["sd"], a["pairs"], a["positive"]) == (3, 20.0, 10.0, 0, 0)
    assert math.isnan(a["difference"])
    assert (b["n"], b["mean"], b["pairs"], b["difference"], b["positive"]) == (2, 16.5, 2, 1.5, 2)
    assert (b["low"], b["high"]) == pytest.approx((1.5 - 12.7062 * 0.5, 1.5 + 12.7062 * 0.5), abs=1e-4)
    assert (nothing["metric"], nothing["n"], nothing["pairs"]) == ("k.n", 0, 0)

    assert summarise(table, comparison).splitlines() == [
        "| run | m | against a | k.n | against a |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| a | 20.0 ± 10.0 |  |  |  |",
        "| b | 16.5 ± 7.8 | +1.5 [-4.9, +7.9] 2/2 |  |  |",
        "",
        "Runs up to evaluate, 3 repeats (r, s, t): mean ± sample standard deviation. Differences to a are "
        "taken repeat by repeat: mean [95 % t-interval] positive/pairs; fewer than 2 pairs have no interval.",
        "No run has these metrics: k.n.",
    ]


def test_compare_takes_fractions_of_full_run_in_pairs(tmp_path: Path) -> None:
    runs = {"a": {}, "b": {}, "full": {"train_segmenter.supervision": "masks"}}
    metrics = ["seeds.miou", "predictions.miou"]
    repeats: dict[str, dict[str, int]] = {"r": {"seed": 1}, "s": {"seed": 2}}
    fields = {"metrics": metrics, "repeats": repeats, "runs": runs}
    ablations = read_ablations(write_ablations(tmp_path, full="full", **fields))

    def metrics_of(miou: float) -> dict[str, float]:
        return {"seeds.miou": 5.0, "predictions.miou": miou}

    scores = {
        "a-r": metrics_of(40), "a-s": metrics_of(35), "b-r": metrics_of(45), "b-s": {},
        "full-r": metrics_of(50), "full-s": metrics_of(50),
    }  # fmt: skip
    table = compare(scores, ablations)
    seeds, a, _, b, _, full = table.to_dict("records")
    assert (a["shares"], a["share"]) == (2, 75)  # 80 and 70
    assert (a["share_low"], a["share_high"]) == pytest.approx((75 - 12.7062 * 5, 75 + 12.7062 * 5), abs=1e-3)
    assert (b["shares"], b["share"]) == (1, 90)
    assert seeds["shares"] == full["shares"] == 0
    assert math.isnan(full["share"])
    assert summarise(table, ablations).splitlines() == [
        "| run | seeds.miou | against a | predictions.miou | against a | of full |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| a | 5.0 ± 0.0 |  | 37.5 ± 3.5 |  | 75.0 % [11.5, 138.5] |",
        "| b | 5.0 | +0.0 0/1 | 45.0 | +5.0 1/1 | 90.0 % |",
        "| full | 5.0 ± 0.0 | +0.0 [+0.0, +0.0] 0/2 | 50.0 ± 0.0 | +12.5 [-19.3, +44.3] 2/2 |  |",
        "",
        "Runs up to evaluate, 2 repeats (r, s): mean ± sample standard deviation. Differences to a are "
        "taken repeat by repeat: mean [95 % t-interval] positive/pairs; fewer than 2 pairs have no interval.",
        "Column of full, which is trained on true masks: percent of its score, repeat by repeat, mean "
        "[95 % t-interval].",
    ]
    without = compare(scores, read_ablations(write_ablations(tmp_path, **fields)))
    assert list(without.columns) == list(table.columns)[:-4]
    assert without.equals(table[without.columns])


def test_summarise_omits_interval_of_one_pair(comparison: Ablations) -> None:
    scores: dict[str, dict[str, float]] = {name: {} for name in comparison.full_names()}
    scores |= {"a-r": {"m": 10.0}, "b-r": {"m": 9.0}, "b-s": {"m": 8.0}}
    summary = summarise(compare(scores, comparison), comparison)
    assert "| a | 10.0 |  |" in summary
    assert "| b | 8.5 ± 0.7 | -1.0 0/1 |" in summary


def test_comparison_page_shows_every_run(tmp_path: Path) -> None:
    """Charts also work for a metric of no run, a run without metrics and a single pair."""
    runs: dict[str, Any] = {
        "a": {},
        "b": {"train_cam.epochs": 3},
        "full": {"train_segmenter.supervision": "masks"},
    }
    metrics = ["seeds.miou", "predictions.miou", "no.such"]
    repeats = {name: {"seed": i} for i, name in enumerate("rst")}
    ablations = read_ablations(
        write_ablations(tmp_path, metrics=metrics, repeats=repeats, runs=runs, full="full")
    )
    scores: dict[str, dict[str, float]] = {name: {} for name in ablations.full_names()}
    for i, repeat in enumerate(repeats):
        scores[f"a-{repeat}"] = {"seeds.miou": 40.0 + i, "predictions.miou": 50.0 + i}
        scores[f"b-{repeat}"] = {"seeds.miou": 45.0 + 1.1 * i}
    scores["full-r"] = {"seeds.miou": 40.0, "predictions.miou": 70.0}
    page = page_of(compare(scores, ablations), scores, ablations)
    gain = "b: +5.1 against a (95 % interval +4.9 to +5.3)"
    assert f"The highest run is {gain}; the interval is above 0." in page
    assert "Nothing to compare with a." in page  # predictions: full is not compared
    assert page.count('role="img"') == 1 + 2 + 2 + 1  # the steps; levels and differences
    assert "segmentation from true masks: 70.0" in page
    assert "<code>train_cam.epochs: 3</code>" in page
    assert page == page_of(compare(scores, ablations), scores, ablations)


def test_read_metrics_rejects_duplicates_and_non_numbers(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(json.dumps({"seeds": {"miou": 1.5, "by": "otsu"}, "n": 2}))
    second.write_text(json.dumps({"n": 3, "gap": {"a": {"b": 4}}}))
    files = [first, second]
    assert read_metrics(files, ["seeds.miou", "gap.a.b", "gone"]) == {"seeds.miou": 1.5, "gap.a.b": 4}
    with pytest.raises(InputError, match=r"second.json: n: is also in another metrics file"):
        read_metrics(files, ["n"])
    with pytest.raises(InputError, match=r"first.json: seeds.by: must be a number, got 'otsu'"):
        read_metrics(files, ["seeds.by"])
    with pytest.raises(InputError, match=r"third.json: cannot be read"):
        read_metrics([tmp_path / "third.json"], ["n"])


def test_compare_and_keep_reject_incomplete_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs_of(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert ablation_table.main(["--table", "t.csv", "--summary", "t.md", "--page", "t.html"]) == 2
    assert "metrics.json: cannot be read" in capsys.readouterr().err
    assert keep_all() == 2
    assert "run `snakemake --cores all ablations` first" in capsys.readouterr().err
    assert not (tmp_path / "t.csv").exists()


def test_keep_leaves_tree_index_and_branches_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        run = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
        return run.stdout.strip()

    monkeypatch.chdir(tmp_path)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    git("init", "-q")
    for name in ("kept", "replaced", "removed"):
        Path(name).write_text(f"{name}\n")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    Path("kept").write_text("edited\n")
    head, before = git("rev-parse", "HEAD"), git("status", "--porcelain=2", "--branch")

    plumbing, ref = Git(tmp_path / ".git" / "other"), f"refs/exps/{head[:2]}/{head[2:]}/a-r"
    keep(plumbing, "a-r", {"replaced": "ä\n", "removed": None, "new/file": "new\n"}, head, head)
    assert git("ls-tree", "-r", "--name-only", ref).splitlines() == ["kept", "new/file", "replaced"]
    assert git("show", f"{ref}:replaced") == "ä"
    assert git("rev-parse", f"{ref}^") == head
    assert git("status", "--porcelain=2", "--branch") == before

    first = git("rev-parse", ref)
    keep(plumbing, "a-r", {"replaced": "ä\n", "removed": None, "new/file": "new\n"}, head, head)
    assert git("rev-parse", ref) == first
    keep(plumbing, "a-r", {"replaced": "other\n"}, head, head)
    assert git("show", f"{ref}:replaced") == "other"


def test_run_files_drop_metrics_of_missing_stages(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    files = run_files(runs["main"], {}, {"seed": 3})
    assert files.pop("params.yaml") == "seed: 3\n"
    assert "results/main/evaluate/metrics.json" in files
    assert set(files.values()) == {None}


def plan(tree: Tree) -> dict[str, int]:
    """Return the number of jobs of each rule that `snakemake ablations` would run now."""
    text = tree.run("snakemake", "--dry-run", "ablations")
    jobs = re.findall(r"^(\w+) +(\d+)$", text, re.MULTILINE)
    return {rule: int(number) for rule, number in jobs if rule not in ("ablations", "total")}


def test_ablations_end_to_end(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.leave_out_optional_stages()
    write_ablations(
        tmp_path,
        metrics=["seeds.miou", "predictions.miou"],
        repeats={"s0": {"seed": 0}, "s1": {"seed": 1}},
        runs={"a": {}, "b": {"train_segmenter.epochs": 1}},
    )
    tree.commit()

    # every stage runs once: a-s0 equals main, and b shares all stages before the segmentation network
    after_segmenter = {"train_segmenter": 4, "predict_masks": 4, "evaluate": 4, "compare_runs": 1}
    cams = {
        "download_backbone": 2,
        "train_cam": 2,
        "infer_cams": 2,
        "train_boundary": 2,
        "make_masks": 2,
        "evaluate_cams": 2,
        "relabel_masks": 2,
    }
    assert plan(tree) == {"download_data": 1, "index_data": 1, **cams, **after_segmenter}
    printed = tree.run("snakemake", "--cores", "1", "ablations")
    assert plan(tree) == {}
    assert "Nothing to be done" in tree.run("snakemake", "--cores", "1", "ablations")
    folders = {run.name: {p.name for p in run.iterdir()} for run in (tmp_path / "results").glob("*-s*")}
    after = {"params.yaml", "train_segmenter", "predict_masks", "evaluate"}
    assert folders == {
        "a-s1": {"params.yaml", "download_backbone", *AFTER_CAMS},
        "b-s0": after,
        "b-s1": after,
    }
    assert (tmp_path / "logs/b-s1/train_segmenter.benchmark.tsv").exists()

    # the table has the values of the metrics files
    scores = {
        run: json.loads((tmp_path / "results" / run / "evaluate/metrics.json").read_text())["predictions"][
            "miou"
        ]
        for run in ("main", "a-s1", "b-s0", "b-s1")
    }
    table = pd.read_csv(tmp_path / "results/ablations.csv").set_index(["run", "metric"])
    row = table.loc["b", "predictions.miou"]
    values = [scores["b-s0"], scores["b-s1"]]
    differences = [scores["b-s0"] - scores["main"], scores["b-s1"] - scores["a-s1"]]
    half = 12.7062 * np.std(differences, ddof=1) / math.sqrt(2)
    assert (row["n"], row["pairs"], row["positive"]) == (2, 2, sum(d > 0 for d in differences))
    assert (row["mean"], row["sd"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)), abs=1e-3)
    mean = np.mean(differences)
    expected = (mean, mean - half, mean + half)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(expected, abs=1e-3)
    assert table.loc["b", "seeds.miou"]["difference"] == 0
    summary = (tmp_path / "results/ablations.md").read_text()
    assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in summary
    assert summary in printed
    page = (tmp_path / "results/ablations.html").read_text()
    assert page.count('role="img"') >= 2 and f"{np.mean(values):.1f}" in page

    # DVC keeps each run as an experiment of the same name
    tree.commit()
    kept = tree.make("adopt-ablations")
    assert "Saved as DVC experiments: a-s0, a-s1, b-s0, b-s1" in kept
    assert tree.run("git", "status", "--short") == ""
    file = "results/main/evaluate/metrics.json"
    diff = json.loads(tree.run("dvc", "metrics", "diff", "a-s1", "b-s1", "--json"))[file]["predictions.miou"]
    assert (diff["old"], diff["new"]) == (scores["a-s1"], scores["b-s1"])
    words = tree.run("dvc", "metrics", "diff", "a-s1", "b-s1")
    assert re.search(rf"predictions.miou +{scores['a-s1']} +{scores['b-s1']} ", words)
    params = json.loads(tree.run("dvc", "params", "diff", "a-s1", "b-s1", "--json"))
    assert params == {
        "params.yaml": {"train_segmenter.epochs": {"old": TRAINER["epochs"], "new": 1, "diff": -1}}
    }
    shown = tree.run("dvc", "exp", "show", "--csv")
    assert all(f"\n{name}," in shown for name in ("a-s0", "a-s1", "b-s0", "b-s1"))

    # compute settings do not change the plan
    tree.set("compute.workers", 1)
    assert plan(tree) == {}

    # a changed late value of one run reruns only that run's later stages
    changed = yaml.safe_load((tmp_path / "ablations.yaml").read_text())
    changed["runs"]["b"]["train_segmenter.lr"] = 0.002
    write_ablations(tmp_path, **changed)
    assert plan(tree) == {"train_segmenter": 2, "predict_masks": 2, "evaluate": 2, "compare_runs": 1}
    assert "Snakemake has work left" in tree.make("adopt-ablations", ok=False)
    tree.run("snakemake", "--cores", "1", "results/b-s0/train_segmenter/network.pt")
    assert plan(tree)["train_segmenter"] == 1
    params = read_params(tmp_path / "results/b-s0/params.yaml")
    assert (params.train_segmenter.lr, params.compute.workers) == (0.002, 1)
