"""The house rules that a machine can check: layers, what the core may import, and the length of files."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "flowmo"
LAYERS = {
    0: (
        *("_version", "config", "errors", "files", "labels", "provenance", "samples", "untrusted"),
        *("downloads", "hub", "image_utils", "devices", "progress", "setting_names", "text"),
    ),
    1: ("pretrained", "presets", "arch", "quantize", "flow", "perceptual", "tiles", "inference", "fingerprint"),
    2: ("verbs",),
    3: ("tokenizer", "metrics"),
    4: ("stages", "generation", "weights", "codec", "data"),
    5: ("training", "fit_transform", "evaluation", "viewing"),
    6: ("coding", "comparison", "profiling", "integrations", "describe"),
    7: ("experiments", "pipelines"),
    8: ("cli",),
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names}
# pretrained.py: methods of models that reach their files in weights/ and generation/ when they are called
EXEMPT = (PACKAGE / "__init__.py", PACKAGE / "__main__.py", PACKAGE / "pretrained.py")
CORE = {"torch", "numpy", "PIL", "safetensors", "filelock"}
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400


def part(path: Path) -> str:
    """The folder, or the file, right under the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, tree: ast.AST) -> Iterator[str]:
    """Full dotted names of everything that the file imports, wherever in it."""
    package = ["flowmo", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*module, alias.name]) for alias in node.names)


def outside_functions(tree: ast.Module) -> ast.Module:
    """The part of a file that runs when it is imported: no bodies of functions, no imports for type checkers."""

    class Cut(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    return Cut().visit(tree)


def layer_violations(path: Path, source: str) -> list[str]:
    own = part(path)
    parts = {name.split(".")[1] for name in imported(path, ast.parse(source)) if name.startswith("flowmo.")}
    return [
        f"{own} imports {other}"
        for other in parts
        if other != own and LAYER.get(other, 99) >= LAYER.get(own, -1) and not LAYER.get(other) == LAYER.get(own) == 0
    ]


def foreign_imports(path: Path, source: str) -> set[str]:
    tops = {name.split(".")[0] for name in imported(path, outside_functions(ast.parse(source)))}
    own = {path.stem} if path.parent.name == "integrations" else set()  # integrations/gradio.py imports gradio
    return tops - CORE - own - {"flowmo"} - set(sys.stdlib_module_names)


def test_every_part_has_a_layer() -> None:
    assert {part(path) for path in FILES if path not in EXEMPT} <= set(LAYER)


@pytest.mark.parametrize("path", [p for p in FILES if p not in EXEMPT], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_lower_layers_and_its_own_folder(path: Path) -> None:
    assert layer_violations(path, path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_training_machine_needs_the_core_alone(path: Path) -> None:
    assert foreign_imports(path, path.read_text()) == set()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_file_says_what_it_is(path: Path) -> None:
    source = path.read_text()
    assert not source or ast.get_docstring(ast.parse(source)), "no docstring"


def test_tests_have_the_folders_of_the_package() -> None:
    """Beside them, rules, vectors of the published code, the scripts of runs/, and other machines have folders."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    own = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders - own == {"contracts", "golden", "runs", "platforms"}
    assert own - folders == {"samples"}


def test_names_of_test_files_are_unique() -> None:
    """Folders of tests are no packages: pytest takes two files of one name for one module and runs neither rightly."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_no_file_is_two_files() -> None:
    folders = (PACKAGE, ROOT / "tests", ROOT / "tools")
    lines = {p: len(p.read_text().splitlines()) for folder in folders for p in folder.rglob("*.py")}
    assert {str(p): n for p, n in lines.items() if n > MAX_LINES} == {}


@pytest.mark.parametrize(
    ("file", "source", "violations", "foreign"),
    [
        ("flow/a.py", "from ..tokenizer import FlowMo", 1, 0),
        ("flow/a.py", "from .. import tokenizer", 1, 0),
        ("flow/a.py", "import flowmo.training.loop", 1, 0),
        ("flow/a.py", "def f():\n    from ..arch import Encoder", 1, 0),
        ("flow/a.py", "from .grids import shifted_grid\nfrom ..errors import ConfigError", 0, 0),
        ("training/a.py", "from ..evaluation.validation import Check", 1, 0),
        ("presets.py", "from .config import FlowMoConfig", 0, 0),
        ("config.py", "from .presets import tiny", 1, 0),
        ("data/a.py", "import pyarrow.parquet as pq", 0, 1),
        ("data/a.py", "try:\n    import tqdm\nexcept ImportError:\n    pass", 0, 1),
        ("data/a.py", "def f():\n    import pyarrow", 0, 0),
        ("data/a.py", "import os, torch.nn.functional as F\nfrom PIL import Image", 0, 0),
    ],
)
def test_these_tests_can_fail(file: str, source: str, violations: int, foreign: int) -> None:
    assert len(layer_violations(PACKAGE / file, source)) == violations
    assert len(foreign_imports(PACKAGE / file, source)) == foreign
