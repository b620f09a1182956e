"""A command of plda that serves a page, in another process."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def serving_page(command: str, *flags: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a command on a free port until the context ends; yield its process and address."""
    words = [sys.executable, "-m", "plda", command, *flags, "--port", "0"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            if "Warning" in line:
                line = process.stderr.readline()
            address = re.fullmatch(rf"plda {command}: (http://\S+:\d+/) \(Ctrl-C stops it\)\n", line)
            assert address, line + process.stderr.read()
            yield process, address[1]
        finally:
            process.kill()
