"""The command line: `python -m plda STAGE --path ...`, and the commands that use a trained network.

A stage is the function `NAME` in `plda/stages/NAME.py`. Each `Path` argument of it is a flag of the command
line; every other argument is a section of the params file, which is validated first, or `params`, all of it.

A use is the function `NAME` in `plda/use/NAME.py`. It reads no params file; `add_arguments` in the same file
defines its flags.
"""

import argparse
import ast
import importlib
import inspect
import io
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, ModuleType
from typing import NoReturn

from plda import __version__
from plda.errors import AGAIN, INTERRUPTED, InputError, Unfinished
from plda.files import delete_remains, remains_of
from plda.processes import kill_workers

STAGES = (
    "download_data",
    "index_data",
    "download_backbone",
    "train_cam",
    "infer_cams",
    "train_boundary",
    "make_masks",
    "evaluate_cams",
    "relabel_masks",
    "train_segmenter",
    "predict_masks",
    "evaluate",
    "report",
)
USES = ("tags", "preset", "review", "predict", "serve", "labels", "export", "backbones")
ENVIRONMENT = {
    # OpenMP threads sleep while they wait. If they spin while other programs run, a training step takes 1.5
    # times as long (benchmarks/cpu_step.py)
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc keeps freed blocks of up to 32 MB: new blocks are zeroed page by page, up to a sixth of a training
    # step. The cache of small blocks is off: cached blocks keep the free blocks around them from merging, so
    # that memory grows with each photo of a new size (benchmarks/stages.py)
    "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=1073741824"
    ":glibc.malloc.tcache_count=0",
    # oneDNN caches the code of this many operations (one per size) instead of 1,024: a training step has
    # about 220, a photo of a new size about 55
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "384",
}


def stage_function(name: str) -> Callable[..., None]:
    """Import the code of stage `name` and return its function."""
    function: Callable[..., None] = getattr(importlib.import_module(f"plda.stages.{name}"), name)
    return function


def summary(command: str) -> str:
    """Return the first line of a command's docstring. Its code is not imported: that would take seconds."""
    room = "stages" if command in STAGES else "use"
    code = (Path(__file__).parent / room / f"{command}.py").read_text(encoding="utf-8")
    functions = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    docstring = ast.get_docstring(next(node for node in functions if node.name == command))
    return (docstring or "").partition("\n")[0]


def path_arguments(function: Callable[..., None]) -> list[str]:
    """Return the names of the arguments that are required flags."""
    return [p.name for p in inspect.signature(function).parameters.values() if p.annotation is Path]


def optional_paths(function: Callable[..., None]) -> list[str]:
    """Return the names of the arguments that are optional flags."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.annotation == Path | None]


def sections(function: Callable[..., None]) -> list[str]:
    """Return the names of the arguments that are sections of the params file; `params` is all of it."""
    flags = path_arguments(function) + optional_paths(function)
    return [name for name in inspect.signature(function).parameters if name not in flags]


def set_environment() -> None:
    """Set the variables in ENVIRONMENT that the user has not set, and use UTF-8 in every locale.

    OpenMP reads its variable when torch is imported. glibc and Python read theirs when a program starts, so
    this program restarts itself if needed. Tables and file names are UTF-8 in every locale.
    """
    glibc = platform.libc_ver()[0] == "glibc" and "GLIBC_TUNABLES" not in os.environ
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if glibc or sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


@contextmanager
def leaving_at_ctrl_c() -> Iterator[None]:
    """Exit at once on Ctrl-C within the context: a module being imported might replace the exception."""

    def leave(_signal: int, _frame: FrameType | None) -> NoReturn:
        os.write(2, b"plda: stopped by Ctrl-C\n")
        os._exit(INTERRUPTED)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0; 2 for bad input; AGAIN for interrupted work; INTERRUPTED after Ctrl-C.
    """
    if arguments is None:
        set_environment()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may not be printable
    with leaving_at_ctrl_c():
        options = _parse(list(sys.argv[1:] if arguments is None else arguments))
    try:
        if options.command in STAGES:
            _run_stage(options)
        else:
            _run_use(options)
    except InputError as error:
        if options.traceback:
            raise
        for line in str(error).splitlines():
            _say(f"plda {options.command}: error: {line}")
        return 2
    except Unfinished as error:
        _say(f"plda {options.command}: {error}")
        return AGAIN
    except KeyboardInterrupt as stop:
        kill_workers()
        _say(f"plda {options.command}: {str(stop) or 'stopped by Ctrl-C'}")
        return INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        if options.traceback or not _lacks_memory(error):
            raise
        _say(f"plda {options.command}: error: out of memory: {' '.join(str(error).split())[:200]}")
        return 2
    return 0


def _say(line: str) -> None:
    with suppress(OSError):  # the reader may have been ended by the same signal
        print(line, file=sys.stderr, flush=True)


def _lacks_memory(error: Exception) -> bool:
    """Return whether memory ran out. On a CPU torch raises a plain RuntimeError, recognised by its text."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in words)


def _parse(given: Sequence[str]) -> argparse.Namespace:
    epilog = None
    if not set(given) & {*STAGES, *USES}:  # the help of one command does not list the others
        epilog = _listed("stages, called by `snakemake` and `dvc repro`", STAGES)
        epilog += _listed("other commands", USES)
    parser = argparse.ArgumentParser(
        prog="plda",
        description="Semantic segmentation from image tags.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, help="see below")
    for name in STAGES + USES:
        command = commands.add_parser(name)
        if name not in given:  # importing every stage would take seconds
            continue
        if name in STAGES:
            _add_flags(command, stage_function(name))
        else:
            _add_own_flags(command, name)
    return parser.parse_args(given)


def _listed(title: str, commands: Sequence[str]) -> str:
    lines = [f"  {name:18} {summary(name)}" for name in commands]
    return "\n".join([f"{title}:", *lines, "", ""])


def _run_stage(options: argparse.Namespace) -> None:
    from plda.params import read_params  # slow to import; see leaving_at_ctrl_c

    function = stage_function(options.command)
    params = read_params(options.params)
    print(f"{options.command}: {summary(options.command)}", file=sys.stderr, flush=True)
    paths = {name: getattr(options, name) for name in path_arguments(function)}
    for path in paths.values():
        delete_remains(remains_of(path))
    chosen = {name: getattr(options, name) for name in optional_paths(function)}
    settings = {name: params if name == "params" else getattr(params, name) for name in sections(function)}
    function(**paths, **chosen, **settings)


def _run_use(options: argparse.Namespace) -> None:
    function = getattr(_use(options.command), options.command)
    function(**{name: getattr(options, name) for name in inspect.signature(function).parameters})


def _use(name: str) -> ModuleType:
    return importlib.import_module(f"plda.use.{name}")


def _add_own_flags(command: argparse.ArgumentParser, name: str) -> None:
    module = _use(name)
    command.description = inspect.getdoc(getattr(module, name))
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(command)


def _add_flags(command: argparse.ArgumentParser, function: Callable[..., None]) -> None:
    command.description = inspect.getdoc(function)
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument(
        "--params", type=Path, required=True, metavar="FILE", help="params.yaml or a file with the same keys"
    )
    required = path_arguments(function)
    for name in required + optional_paths(function):
        flag = "--" + name.replace("_", "-")
        command.add_argument(flag, dest=name, type=Path, required=name in required, metavar="PATH")


if __name__ == "__main__":
    sys.exit(main())
