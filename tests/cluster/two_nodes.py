"""A Slurm of two nodes that is started for the tests, and trees whose profile is filled in for it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_engines import Tree

HERE = Path(__file__).parent
SLURM = ["snakemake", "--workflow-profile", "profiles/slurm"]
SLURM += ["--slurm-init-seconds-before-status-checks", "1"]  # then after 12 s, 33 s: jobs here take seconds
PACKAGES = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
}
ACCOUNTING = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server"}


def obstacle(packages: dict[str, str]) -> str:
    """Why no Slurm can be started here, if so."""
    missing = [name for name in packages if not shutil.which(name)]
    if missing:
        return f"{missing[0]} is not installed; Debian has it in {packages[missing[0]]}"
    if find_spec("snakemake_executor_plugin_slurm") is None:
        return "Snakemake's plugin is not installed: `make slurm`"
    if os.geteuid() != 0:
        return "only root can start Slurm"
    if Path("/etc/slurm/slurm.conf").exists():
        return "this machine belongs to a cluster"
    return ""


@contextmanager
def started(folder: Path, *, accounting: bool = False) -> Iterator[None]:
    """Within, Slurm runs, with all it writes in `folder`; the test is skipped where it cannot be started."""
    why_not = obstacle(PACKAGES | ACCOUNTING if accounting else PACKAGES)
    if why_not:
        pytest.skip(why_not)
    try:
        up = subprocess.run(
            [HERE / "up.sh", folder, *(["accounting"] if accounting else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if up.returncode:
            pytest.skip(f"Slurm cannot be started here: {up.stdout}")
        yield
    finally:
        subprocess.run([HERE / "down.sh", folder], check=True)


def planted(folder: Path, *, account: str = "\"''\"") -> Tree:
    """A tree whose profile names the partition, and an account where there are some."""
    tree = Tree(folder)
    profile = folder / "profiles/slurm/config.yaml"
    text = profile.read_text().replace("slurm_partition: FILL_IN", "slurm_partition: gpu")
    profile.write_text(text.replace("slurm_account: FILL_IN", f"slurm_account: {account}"))
    return tree
