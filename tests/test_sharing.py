"""Results shared between colleagues: push and pull on a disk and over SSH, and one cache for a group."""

import hashlib
import os
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from ssh_server import SSHD, serving_ssh
from test_engines import Tree

pytestmark = pytest.mark.cluster

RESULTS = Path("results/main")


class Clone(Tree):
    """A git clone of another tree, in a sibling folder."""

    def __init__(self, tree: Tree, name: str) -> None:
        self.folder = tree.folder.with_name(name)
        tree.run("git", "clone", "-q", ".", str(self.folder))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Return a tree with a finished run, committed and pushed to a sibling folder."""
    folder = tmp_path_factory.mktemp("sharing") / "here"
    folder.mkdir()
    tree = Tree(folder)
    tree.leave_out_optional_stages()
    for trainer in ("train_cam", "train_segmenter"):
        tree.set(f"{trainer}.epochs", 1)
    tree.run("dvc", "repro")
    tree.commit()
    tree.run("dvc", "push")
    return tree


@pytest.fixture
def far(tmp_path: Path) -> Iterator[list[list[str]]]:
    """Yield DVC commands that add a remote on an SSH server."""
    if SSHD is None:
        pytest.skip("sshd is not installed; Debian has openssh-server")
    if find_spec("dvc_ssh") is None:
        pytest.skip("DVC's part for SSH is not installed: `make ssh`")
    keys, remote = tmp_path / "keys", tmp_path / "remote"
    keys.mkdir()
    with serving_ssh(keys) as server:
        yield [
            ["remote", "add", "--local", "--default", "far", f"ssh://127.0.0.1:{server.port}{remote}"],
            ["remote", "modify", "--local", "far", "keyfile", str(server.key)],
        ]
        assert sum(path.is_file() for path in remote.rglob("*")) > 0


def is_the_run_of(here: Tree, there: Tree) -> None:
    """Check that neither engine has work left and that the metrics are the same."""
    repro = there.run("dvc", "repro")
    assert "up to date" in repro and there.dvc_ran(repro) == []
    there.make("adopt-snakemake")  # runs `dvc status` first
    assert there.snakemake_plan() == []
    assert there.metrics() == here.metrics()
    assert there.run("git", "status", "--short") == ""
    # Snakemake cannot replace a file that is neither a link nor writable for its user; root always can
    for path in (there.folder / RESULTS).rglob("*"):
        assert path.is_symlink() or path.stat().st_mode & stat.S_IWUSR, path


def test_pull_from_sibling_folder(here: Tree) -> None:
    there = Clone(here, "there")
    there.run("dvc", "pull")
    is_the_run_of(here, there)
    there.make("adopt-dvc")  # and back again
    assert there.run("git", "status", "--short") == ""


def test_pull_over_ssh(here: Tree, far: list[list[str]]) -> None:
    sender, receiver = (Clone(here, name) for name in ("sender", "receiver"))
    sender.run("dvc", "pull")
    for tree in (sender, receiver):
        for command in far:
            tree.run("dvc", *command)
    assert "Missing cache files" in receiver.run("dvc", "pull", ok=False)
    sender.run("dvc", "push")
    receiver.run("dvc", "pull")
    assert receiver.run("dvc", "status", "--cloud") == "Cache and remote 'far' are in sync.\n"
    is_the_run_of(here, receiver)


def test_group_shares_one_cache(here: Tree, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o2775)
    alice, bob = (Clone(here, name) for name in ("alice", "bob"))
    for tree in (alice, bob):
        tree.run("dvc", "cache", "dir", "--local", str(cache))
        tree.run("dvc", "config", "--local", "cache.shared", "group")
        tree.run("dvc", "config", "--local", "cache.type", "reflink,symlink,copy")
    before = os.umask(0o077)  # a private umask must not affect the shared cache
    try:
        alice.run("dvc", "pull")
        bob.run("dvc", "checkout")  # nothing to pull
        is_the_run_of(here, bob)
        results = sorted(p.relative_to(alice.folder) for p in (alice.folder / RESULTS).rglob("*.p[nt]*"))
        assert len(results) > 16
        for path in results:
            assert (alice.folder / path).samefile(bob.folder / path)
        first = contents(alice, results)

        # either engine replaces links in one clone; the files of the other clone do not change
        for undecided, engine in ((0.2, ["dvc", "repro"]), (0.3, ["snakemake", "--cores", "1", "--until"])):
            bob.set("make_masks.undecided", undecided)
            bob.run(*engine, "make_masks")
            bob.run("dvc", "commit", "--force", "make_masks")
            assert contents(bob, results) != first
            assert contents(alice, results) == first
        assert alice.run("dvc", "status") == "Data and pipelines are up to date.\n"

        # results that one clone has computed are not computed by the other
        alice.set("make_masks.undecided", 0.2)
        assert "'make_masks' is cached - skipping run" in alice.run("dvc", "repro", "make_masks")
    finally:
        os.umask(before)

    objects = [path for path in (cache / "files/md5").rglob("*") if path.is_file()]
    for path in objects:
        name = path.parent.name + path.name.removesuffix(".dir")
        assert hashlib.md5(path.read_bytes()).hexdigest() == name
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
    for folder in (path for path in cache.rglob("*") if path.is_dir()):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o2775, folder


def contents(tree: Tree, paths: list[Path]) -> list[bytes]:
    return [(tree.folder / path).read_bytes() for path in paths]
