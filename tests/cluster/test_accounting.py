"""The profile on a Slurm that keeps accounts: one job, as any other job is submitted and asked for."""

import subprocess
from collections.abc import Iterator

import pytest
from test_engines import Tree
from two_nodes import SLURM, planted, started

pytestmark = pytest.mark.cluster

JOB = "results/main/index_data/data_set"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    with started(tmp_path_factory.mktemp("slurm"), accounting=True):
        yield planted(tmp_path_factory.mktemp("tree"), account="vision")


def accounts() -> list[str]:
    """Account, state and rule of every job that was ever submitted."""
    command = ["sacct", "--allocations", "--noheader", "--parsable2", "--format", "account,state,comment"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_an_account_that_is_not_the_users_is_refused(tree: Tree) -> None:
    said = tree.run(*SLURM, "--set-resources", "index_data:slurm_account=theirs", "--", JOB, ok=False)
    assert "The given account theirs appears to be invalid" in said
    assert accounts() == []


def test_a_job_is_charged_to_the_users_account(tree: Tree) -> None:
    tree.run(*SLURM, "--slurm-status-command", "sacct", "--", JOB)
    assert accounts() == ["vision|COMPLETED|rule_index_data_wildcards_main"]
