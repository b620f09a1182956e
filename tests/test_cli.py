"""The command line: help, exit status and messages."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Photos, Refusal, run_stage, write_params

from plda.__main__ import ENVIRONMENT, STAGES, USES, main, summary
from plda.errors import InputError


def test_help_lists_stages_and_uses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    stages, uses = text.split("other commands:")
    assert all(f"\n  {name} " in stages for name in STAGES)
    assert all(f"\n  {name} " in uses for name in USES)


@pytest.mark.parametrize("name", STAGES)
def test_stage_help_explains_paths(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--params FILE" in text
    assert "Args:" in text


def test_stage_without_path_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["infer_cams", "--params", "params.yaml"])
    assert stop.value.code == 2
    assert "--cam-network" in capsys.readouterr().err


def test_bad_input_shows_traceback_only_on_request(photos: Photos, tmp_path: Path) -> None:
    assert photos.index(tmp_path / "out") == 0
    (photos.folder / "a.jpg").unlink()
    arguments = ["index_data", "--params", str(tmp_path / "params.yaml")]
    for flag in ("archives", "data-set"):
        arguments += [f"--{flag}", str(tmp_path / "new" / flag)]

    def run(*options: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "plda", *options, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)

    quiet = run()
    assert quiet.returncode == 2
    assert quiet.stderr.splitlines()[0] == f"index_data: {summary('index_data')}"
    assert quiet.stderr.splitlines()[1].startswith("plda index_data: error: ")
    assert "Traceback" not in quiet.stderr
    loud = run("--traceback")
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr
    assert InputError.__name__ in loud.stderr


def test_stage_deletes_temporary_folder_of_killed_process(photos: Photos, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = out / f".data_set.{ended.pid}.tmp"
    left.mkdir()
    (left / "images.zip").write_bytes(b"half")
    (photos.folder / "a.jpg").unlink()  # the stage fails and writes nothing
    assert photos.index(out) == 2
    assert not left.exists()


def test_index_data_folder_flag_overrides_params(photos: Photos, tmp_path: Path, refused: Refusal) -> None:
    params = write_params(tmp_path / "params.yaml", source="folder", index_data__folder="elsewhere")
    paths = {"archives": tmp_path / "a.json", "data_set": tmp_path / "out/data_set"}
    assert "elsewhere/tags.csv" in refused(run_stage, "index_data", params, **paths)
    assert run_stage("index_data", params, **paths, folder=photos.folder) == 0


@pytest.mark.parametrize(
    "given", [{}, {"OMP_WAIT_POLICY": "ACTIVE", "GLIBC_TUNABLES": "glibc.malloc.check=0"}]
)
def test_set_environment_keeps_user_values(given: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from plda.__main__ import ENVIRONMENT, set_environment\n"
        "print('begins', flush=True)\n"
        "set_environment()\n"
        "print(*(os.environ[name] for name in ENVIRONMENT), *sys.argv[1:])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    environment |= given | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program), "a flag"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    *begun, values = said.splitlines()
    assert values == " ".join([*(ENVIRONMENT | given).values(), "a flag"])
    assert len(begun) == (1 if given or platform.libc_ver()[0] != "glibc" else 2)
