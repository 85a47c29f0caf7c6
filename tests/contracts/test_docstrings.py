"""What the package says of itself: first lines of docstrings are sentences, and every field has a comment."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "flowmo"
FILES = sorted(PACKAGE.rglob("*.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))

# A sentence begins with a capital, a name in backticks, or a letter of the paper such as p(t) and d_perc.
BEGINNING = re.compile(r'[A-Z`"\d]|p\(t\)|d_perc\b')
IMPERATIVE = re.compile(r"[A-Z][a-z]*(ss|[a-rt-z])\b")
NO_VERB = {
    *("A", "An", "All", "As", "At", "By", "For", "From", "In", "Of", "On", "One", "The", "These", "This", "Those"),
    *("What", "When", "Where", "Whether", "How", "Why", "With"),
}


def is_text(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def fault_of(node: ast.AST, first: str) -> str | None:
    """What is wrong with the first line of a docstring."""
    if not first.endswith("."):
        return "its first line does not end with a full stop"
    if not BEGINNING.match(first):
        return "its first line does not begin as a sentence"
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        word = IMPERATIVE.match(first)
        if not word or word[0] in NO_VERB:
            return "it does not begin with what the function does, as in 'Return', 'Write', 'Raise'"
    return None


def docstring_faults(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            fault = None if text is None else fault_of(node, (text.splitlines() or [""])[0])
            if fault:
                yield f"{node.body[0].lineno}: {fault}"


def has_fields(node: ast.ClassDef) -> bool:
    names = [*node.decorator_list, *node.bases]
    return any(re.match(r"(\w+\.)*(dataclass|NamedTuple)\b", ast.unparse(name)) for name in names)


def field_faults(source: str) -> Iterator[str]:
    """A comment is on a line of the field, or alone on the line above; a text is directly below."""
    comments: dict[int, bool] = {}  # whether nothing else is on that line
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments[token.start[0]] = not token.line[: token.start[1]].strip()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and has_fields(node):
            for field, below in zip(node.body, [*node.body[1:], None], strict=True):
                if not isinstance(field, ast.AnnAssign):
                    continue
                inside = range(field.lineno, (field.end_lineno or field.lineno) + 1)
                if not (comments.get(field.lineno - 1) or any(k in comments for k in inside) or is_text(below)):
                    yield f"{field.lineno}: {node.name}.{ast.unparse(field.target)} has no comment"


@each_file
def test_docstrings_begin_with_a_sentence(path: Path) -> None:
    assert [f"{path}:{fault}" for fault in docstring_faults(path.read_text(encoding="utf-8"))] == []


@each_file
def test_fields_have_comments(path: Path) -> None:
    assert [f"{path}:{fault}" for fault in field_faults(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Return the sum of two numbers.", None),
        ("Pass it on.", None),
        ("Return the sum, once.\n\n    a, b: numbers", None),
        ("Return the sum of two\n    numbers.", "full stop"),
        ("Return the sum", "full stop"),
        ("", "full stop"),
        ("\n    Return the sum of two", "full stop"),
        ("a, b: numbers.", "begin as a sentence"),
        ("Raises ValueError.", "what the function does"),
        ("The sum of two numbers.", "what the function does"),
        ("Whether it is a number.", "what the function does"),
        ("``a`` + ``b``.", "what the function does"),
    ],
)
def test_a_docstring_that_is_none_is_found(text: str, fault: str | None) -> None:
    found = list(docstring_faults(f'def add(a, b):\n    """{text}"""\n'))
    assert len(found) == (fault is not None)
    assert all(line.startswith("2: ") and str(fault) in line for line in found)


def test_docstrings_of_classes_and_modules_are_looked_at() -> None:
    source = '"""a module."""\nclass A:\n    """One thing"""\n    async def run(self):\n        """Runs it."""\n'
    assert [fault.partition(":")[0] for fault in docstring_faults(source)] == ["1", "3", "5"]
    assert list(docstring_faults('"""The module."""\nclass A:\n    """One thing."""\n    def run(self): ...\n')) == []


def test_a_field_without_a_comment_is_found() -> None:
    source = '''
from dataclasses import dataclass, field
import typing

@dataclass(frozen=True)
class A:
    """A thing."""

    a: int  # one
    b: int
    # Three.
    c: int = field(
        default=3,
    )
    d: int
    """Four."""
    e: int = field(
        default=5,  # five
    )

class B(typing.NamedTuple):
    f: int
    def g(self):
        h: int = 1

class C:
    i: int
'''
    assert list(field_faults(source)) == ["10: A.b has no comment", "22: B.f has no comment"]
