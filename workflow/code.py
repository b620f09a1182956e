"""`make deps`: writes the code that each stage runs, found by its imports, into dvc.yaml."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from workflow.stages import DECLARATION

# code that every stage runs and that cannot change results: the command line and the checks of params
FRAME = {"plda/__init__.py", "plda/__main__.py", "plda/backbone_names.py", "plda/errors.py", "plda/params.py"}


def code_of(stage: str, root: Path = Path()) -> list[str]:
    """Return the files of plda that a stage imports, and the templates beside them.

    Raises:
        FileNotFoundError: plda/stages below `root` has no such stage.
    """
    found, waiting = set(), [f"plda/stages/{stage}.py"]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found |= {path, *(str(p.relative_to(root)) for p in (root / path).parent.glob("*.j2"))}
        code = (root / path).read_text(encoding="utf-8")
        names = (name.replace(".", "/") + ".py" for name in _imported(code))
        waiting += [name for name in names if (root / name).exists()]  # other names are not modules
    return sorted(found - FRAME)


def with_code(declaration: str, root: Path = Path()) -> str:
    """Return the text of dvc.yaml with the code of each stage as its last deps; the rest is unchanged."""

    def rewritten(stage: re.Match[str]) -> str:
        name, before, deps = stage.groups()
        data = re.sub(r"^      - plda/.*\n", "", deps, flags=re.M)
        code = "".join(f"      - {path}\n" for path in code_of(name, root))
        return f"  {name}:\n{before}{data}{code}"

    return re.sub(
        r"^  (\w+):\n((?:    .*\n)*?    deps:\n)((?:      .*\n)*)", rewritten, declaration, flags=re.M
    )


def _imported(code: str) -> Iterator[str]:
    """Yield what a file imports from plda, at any place: modules, and names that may be modules."""
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{name}" for name in names)]
        yield from (name for name in names if name.startswith("plda."))


if __name__ == "__main__":
    text = with_code(DECLARATION.read_text(encoding="utf-8"))
    DECLARATION.write_text(text, encoding="utf-8")
