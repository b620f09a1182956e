"""Consistency of dvc.yaml, the rules, the stage functions, the params and the code."""

import ast
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Photos
from dvc.repo import Repo

from plda.__main__ import STAGES, USES, path_arguments, sections, stage_function
from plda.errors import InputError
from plda.params import Params
from workflow.ablations import read_ablations
from workflow.code import code_of, with_code
from workflow.given import fingerprint
from workflow.runs import compared, read_runs
from workflow.stages import Stage, fill_stages, upstream

PLACE = "compute"  # where a stage runs; it does not change results, so no engine reruns a stage for it


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return read_runs(ROOT / "dvc.yaml", ROOT / "params.yaml", ROOT / "ablations.yaml")["main"]


def test_stages_functions_and_sections_have_same_names(stages: dict[str, Stage]) -> None:
    files = {p.stem for p in (ROOT / "plda" / "stages").glob("*.py")} - {"__init__"}
    assert list(stages) == list(STAGES)
    assert set(stages) == files
    assert set(Params.model_fields) - {"source", "seed", PLACE} <= set(stages)


def test_uses_are_not_stages() -> None:
    assert not set(USES) & set(STAGES)
    for name in USES:
        tree = ast.parse((ROOT / "plda" / "use" / f"{name}.py").read_text())
        assert {name, "add_arguments"} <= {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize("name", STAGES)
def test_command_flags_match_function_arguments(stages: dict[str, Stage], name: str) -> None:
    function, words = stage_function(name), shlex.split(stages[name].command)
    assert words[:6] == ["python", "-m", "plda", name, "--params", "params.yaml"]
    flags = [word.removeprefix("--").replace("-", "_") for word in words[6::2]]
    assert flags == path_arguments(function)
    used = set(Params.model_fields if sections(function) == ["params"] else sections(function))
    assert sorted(stages[name].settings) == sorted(used - {PLACE})
    for flag in flags:
        assert f"\n        {flag}: " in (function.__doc__ or ""), f"{flag} is not explained"


@pytest.mark.parametrize("name", STAGES)
def test_command_paths_are_inputs_or_outputs(stages: dict[str, Stage], name: str) -> None:
    stage = stages[name]
    words = shlex.split(stage.command)
    named = dict(zip(words[6::2], words[7::2], strict=True))
    named.pop("--checkpoints", None)  # state of a killed training: neither input nor output
    data = {path for path in stage.inputs if not path.startswith("plda/")}
    assert set(named.values()) == data | set(stage.outputs)
    assert not data & set(stage.outputs)


@pytest.mark.parametrize("name", STAGES)
def test_stage_inputs_contain_its_code(stages: dict[str, Stage], name: str) -> None:
    code = [path for path in stages[name].inputs if path.startswith("plda/")]
    assert code == code_of(name, ROOT), "run `make deps`"


@pytest.mark.parametrize(
    ("file", "dependent"),
    {
        "models/seam.py": "train_cam infer_cams train_boundary",
        "models/boundary.py": "train_boundary make_masks",
        "models/segmenters.py": "relabel_masks train_segmenter predict_masks",
        "adaptation/learner.py": "train_cam",
        "training/inspection.py": "train_cam",
        "scoring/masks.py": "evaluate_cams evaluate",
        "report/page.py": "report",
    }.items(),
)
def test_only_stages_that_use_a_file_depend_on_it(file: str, dependent: str) -> None:
    assert [name for name in STAGES if f"plda/{file}" in code_of(name, ROOT)] == dependent.split()


def test_with_code_updates_only_code_dependencies() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    stale = re.sub(r"^      - plda/(data|files).*\n", "", text, flags=re.M)
    stale = stale.replace("    deps:\n", "    deps:\n      - plda/gone.py\n")
    assert with_code(text, ROOT) == text
    assert with_code(stale, ROOT) == text


LAYERS = {
    "data": set(),
    "download": {"data"},
    "sources": {"data", "download"},
    "readers": {"data", "sources"},
    "compute": set(),
    "models": {"data", "download"},
    "masks": {"data"},
    "refinement": {"data", "models", "masks"},
    "adaptation": {"data", "models", "refinement"},
    "scoring": {"data", "masks", "refinement"},
    "training": {"compute", "data", "models", "masks", "refinement", "adaptation"},
    "report": {"data", "models", "masks", "refinement", "adaptation", "scoring"},
    "writers": {"data", "masks"},
    "reviewing": {"data", "masks", "readers"},
    "use": {"compute", "data", "sources", "readers", "models", "masks", "refinement", "writers", "reviewing"},
}
LAYERS["stages"] = LAYERS.keys() - {"readers", "reviewing", "use", "writers"}


@pytest.mark.parametrize("room", LAYERS)
def test_imports_follow_package_layers(room: str) -> None:
    beneath = LAYERS[room] | {room}
    for file in (ROOT / "plda" / room).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                package, _, rest = (node.module or "").partition(".")
                if package == "plda" and "." in rest:
                    assert rest.split(".")[0] in beneath, f"{file} imports {node.module}"


def test_adaptation_uses_no_files_or_devices() -> None:
    for file in (ROOT / "plda" / "adaptation").glob("*.py"):
        text = file.read_text()
        for word in ("pathlib", "cuda", "open("):
            assert word not in text, f"{file}: {word}"


def test_read_runs_matches_dvc(stages: dict[str, Stage]) -> None:
    theirs = {}
    with Repo(str(ROOT)) as repo:
        for stage in repo.index.stages:
            sections = [d for d in stage.deps if hasattr(d, "params")]
            theirs[stage.name] = (
                stage.cmd,
                sorted(d.def_path for d in stage.deps if d not in sections),
                sorted(o.def_path for o in stage.outs),
                sorted(o.def_path for o in stage.outs if o.metric),
                sorted(o.def_path for o in stage.outs if not o.use_cache),
                sorted(p for d in sections for p in d.params),
            )
    ours = {
        s.name: (
            s.command,
            sorted(s.inputs + s.given),
            sorted(s.outputs),
            sorted(s.metrics),
            sorted(s.in_git),
            sorted(s.settings),
        )
        for s in stages.values()
    }
    assert ours == theirs


def planned(target: str) -> dict[tuple[str, str], tuple[set[str], set[str], str]]:
    """Return Snakemake's plan of all jobs: (rule, run) to inputs, outputs and command."""
    plan = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--forceall", "--printshellcmds", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    job = (
        r"^rule (\w+):\n    input: (.*)\n    output: (.*)\n    log: logs/([\w-]+)/\1.log\n"
        r"(?:    .*\n)*?Shell command: (.*)\n"
    )
    return {
        (name, run): (set(inputs.split(", ")), set(outputs.split(", ")), command)
        for name, inputs, outputs, run, command in re.findall(job, plan, re.MULTILINE)
    }


def as_planned(stage: Stage) -> tuple[set[str], set[str], str]:
    command = f"{stage.command} 2>&1 | tee -i logs/{stage.run}/{stage.name}.log"
    if "--checkpoints" in stage.command:  # a training stage
        command = f"trap '' TERM; {command}"
    return set(stage.inputs), set(stage.outputs), command


def test_rules_match_stages(stages: dict[str, Stage]) -> None:
    assert planned("all") == {(s.name, "main"): as_planned(s) for s in stages.values()}


def test_rules_match_stages_of_every_run() -> None:
    runs = read_runs(ROOT / "dvc.yaml", ROOT / "params.yaml", ROOT / "ablations.yaml")
    expected = {}
    for made in compared(runs, read_ablations(ROOT / "ablations.yaml")).values():
        expected |= {(stage.name, stage.run): as_planned(stage) for stage in made.values()}
    assert planned("ablations") == expected


def test_snakemake_rejects_config_values() -> None:
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--config", "seed=1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert "values are set in params.yaml" in run.stdout + run.stderr


def test_rulegraph_contains_all_rules(stages: dict[str, Stage]) -> None:
    picture = (ROOT / "docs" / "rulegraph.svg").read_text()
    for name in stages:
        assert f">{name}</text>" in picture, "run `make rulegraph`"


def test_git_ignores_only_outputs_cached_by_dvc() -> None:
    """Metrics, tables and curves of the run `main` belong in git, all other outputs in DVC."""
    with Repo(str(ROOT)) as repo:
        outputs = {o.def_path: o.use_cache for s in repo.index.stages for o in s.outs}
    for path, cached in outputs.items():
        ignored = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0
        assert ignored == cached, path


def test_stage_modules_are_imported_lazily() -> None:
    code = "import sys, plda.__main__; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_rules_import_no_numeric_library() -> None:
    """Snakemake would take twice as long to start."""
    modules = "workflow.ablations, workflow.given, workflow.locks, workflow.runs"
    code = f"import sys, {modules}; print({{'torch', 'numpy', 'pandas'}} & {{*sys.modules}})"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"


def test_result_paths_occur_only_in_dvc_yaml() -> None:
    for file in [*(ROOT / "plda").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk")]:
        assert not re.search("results/.*/", file.read_text()), f"{file} names a path of a stage's result"


def test_dvc_yaml_paths_contain_run_and_stage(stages: dict[str, Stage]) -> None:
    """Otherwise a stage of another run would read or write a file of `main`."""
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    paths = [path for group in content["vars"] for path in group.values()]
    assert "results/" not in yaml.safe_dump(content["stages"]), "paths stand in vars"
    assert sorted(paths) == sorted(path for stage in stages.values() for path in stage.outputs)
    for stage in stages.values():
        assert all(path.startswith(f"results/main/{stage.name}/") for path in stage.outputs)


def test_stages_follow_those_they_read(stages: dict[str, Stage]) -> None:
    names = list(stages)
    for name, stage in stages.items():
        assert all(names.index(before) < names.index(name) for before in upstream(stage, stages))


def test_command_must_not_reference_params() -> None:
    declaration = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    declaration["stages"]["index_data"]["cmd"] += " --folder ${index_data.folder}"
    with pytest.raises(InputError, match=r"stages\.index_data\.cmd: \$\{index_data\.folder\} must be"):
        fill_stages(declaration, yaml.safe_load((ROOT / "params.yaml").read_text()))


def test_fingerprint_depends_on_listed_files(photos: Photos) -> None:
    def changed() -> str:
        fingerprint.cache_clear()
        return fingerprint(photos.folder)

    prints = [changed()]
    for spoil in (
        lambda: (photos.folder / "a.png").touch(),  # a mask
        lambda: (photos.folder / "classes.txt").write_text("background\ncat\n"),
        (photos.folder / "a.jpg").unlink,
        lambda: (photos.folder / "tags.csv").write_bytes(b'image,mask\n"\xff\x00,\n'),
        (photos.folder / "tags.csv").unlink,
        lambda: shutil.rmtree(photos.folder),
    ):
        (photos.folder / "other.txt").write_text(str(len(prints)))
        assert changed() == prints[-1]
        spoil()
        prints.append(changed())
    assert len(set(prints)) == len(prints)


HOLD = "import sys; from workflow import locks; locks.hold(False); print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize(
    ("user", "alive", "removed"),
    [("", False, True), ("", True, False), ("elsewhere", False, False), ("cluster", False, False)],
)
def test_locks_are_removed_only_without_live_process(
    tmp_path: Path, user: str, alive: bool, removed: bool
) -> None:
    notes = tmp_path / ".snakemake/locks"
    notes.mkdir(parents=True)
    (notes / f"{user or socket.gethostname()}.user").touch()
    start = partial(
        subprocess.Popen,
        [sys.executable, "-c", HOLD],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    first = start()
    assert first.stdout and first.stdout.readline()
    if not alive:
        first.kill()
        first.wait()
    (notes / "0.output.lock").touch()
    with start() as second:
        second.communicate(b"")
    assert (notes / "0.output.lock").exists() != removed
    first.kill()
    first.communicate()
