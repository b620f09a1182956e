"""Facts about a run: its data, method, machine and code."""

import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plda
from plda.data.index import Entry
from plda.refinement.steps import STEPS


def data_facts(entries: Sequence[Entry], classes: Sequence[str], params: Mapping[str, Any]) -> dict[str, str]:
    """Describe the data set: a sentence for each term."""
    source = params["source"]
    kinds = {
        "creatures": "creatures, drawn by this project",
        "folder": f"photos in the folder {params['index_data']['folder']}",
        "voc2012": "PASCAL VOC 2012 with SBD",
        "coco2014": "MS COCO 2014",
    }
    width, height = (round(statistics.median(getattr(e, s) for e in entries)) for s in ("width", "height"))
    tags = statistics.mean(len(entry.tags) for entry in entries if entry.split != "test" and entry.known)
    train, val = ([e for e in entries if e.split == split] for split in ("train", "val"))
    return {
        "Images": f"{kinds.get(source, source)}: {len(train):,} for training, {len(val):,} for "
        f"validation; median size {width} by {height} pixels, {tags:.1f} tags per image on average",
        "Classes": f"{len(classes) - 1}, and background: {', '.join(classes[1:])}",
        "True masks": f"{_masked(train)} training images and {_masked(val)} validation images have one",
    }


def method_facts(params: Mapping[str, Any], origins: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Describe the method: a sentence for each term.

    Args:
        params: params of the run.
        origins: origins of the first weights of `cams` and `segmenter`, see `FirstWeights`.
    """
    cam, segmenter = params["train_cam"], params["train_segmenter"]
    adaptation = cam["adaptation"]
    plda_is = (
        f"on (weights: adversary {adaptation['adversary']:g}, supervision {adaptation['supervision']:g})"
        if adaptation["enabled"]
        else "off"
    )
    learnt = "pseudo-masks"
    if params["relabel_masks"]["enabled"]:
        learnt += f", relabelled once by a first network after {_epochs(params['relabel_masks'])}"
    if segmenter["supervision"] == "masks":
        learnt = "true masks: an upper bound, not a result"
    chain = _refinement(params["predict_masks"])
    return {
        "Classifier": f"{cam['baseline']} on {_backbone(origins['cams'])}, {_epochs(cam)}",
        "Domain adaptation (PLDA)": plda_is,
        "Refinement": _refinement(params["make_masks"]),
        "Segmentation network": f"{segmenter['head']} on {_backbone(origins['segmenter'])}, "
        f"{_epochs(segmenter)}; trained on {learnt}; refinement of its masks: {chain}",
        "Seed": str(params["seed"]),
    }


def gist(params: Mapping[str, Any]) -> list[str]:
    """Summarise the run in short phrases."""
    cam, backbones = params["train_cam"], params["download_backbone"]
    return [
        f"data: {params['source']}",
        f"classifier: {cam['baseline']} on {backbones['cams']['name']}",
        f"PLDA {'on' if cam['adaptation']['enabled'] else 'off'}",
        f"refinement: {_refinement(params['make_masks'])}",
        f"network: {params['train_segmenter']['head']} on {backbones['segmenter']['name']}",
        f"seed {params['seed']}",
    ]


def machine_facts(machines: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Describe the machine of each training (see `plda.training.compute.describe`), once if all are equal."""
    told = {
        name: f"{it['device']}, {it['precision']} precision; {it['system']}, Python {it['python']}, "
        f"PyTorch {it['torch']}"
        for name, it in machines.items()
    }
    if len(set(told.values())) == 1:
        return {"Trained on": next(iter(told.values()))}
    return {f"Trained on ({name})": text for name, text in told.items()}


def code_fact() -> str:
    """Describe the last commit that changed the running code, if git knows it.

    Other commits are ignored: a rerun after the results were committed gives the same page.
    """
    package = Path(plda.__file__).parent
    version = f"plda {plda.__version__}, Python {platform.python_version()}"
    try:
        commit = _git(package, "log", "-1", "--abbrev=10", "--format=%h of %cs", "--", ".")
        changed = _git(package, "status", "--porcelain", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        commit = changed = ""
    if not commit:
        return f"{version}; not in a git repository"
    return f"{version}, code of commit {commit}" + (", with uncommitted changes" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()


def _masked(entries: Sequence[Entry]) -> str:
    return f"{sum(bool(entry.mask) for entry in entries):,} of {len(entries):,}"


def _refinement(section: Mapping[str, Any]) -> str:
    return ", then ".join(STEPS[step] for step in section["refinement"]) or "none"


def _backbone(origin: Mapping[str, str]) -> str:
    start = f"first weights: {origin['from']}"
    for name in ("repository", "file", "revision", "sha256"):
        if name in origin:
            start += f", {name} {origin[name][:12] if name in ('revision', 'sha256') else origin[name]}"
    if "licence" in origin:
        start += f", licence {origin['licence']}"
    return f"{origin['name']} ({start})"


def _epochs(settings: Mapping[str, Any]) -> str:
    epochs = settings["stop_after"] or settings["epochs"]
    return f"{epochs} epoch{'' if epochs == 1 else 's'}"
