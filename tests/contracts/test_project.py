"""What a visitor of the project finds: metadata, citation, the site of the documents, workflows, and the one set of
checks that all of them run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def read_yaml(path: Path) -> object:
    yaml = pytest.importorskip("yaml", reason="needs pyyaml: pip install 'flowmo[docs]'")
    return yaml.safe_load(path.read_text())


def test_every_extra_that_a_message_names_exists() -> None:
    extras = set(PROJECT["optional-dependencies"])
    named: set[str] = set()
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *ROOT.glob("*.md")]:
        for group in re.findall(r"(?:flowmo|\.)\[([a-z,]+)\]'", path.read_text()):
            named |= set(group.split(","))
    assert named <= extras
    assert {"hub", "app", "diffusers", "docs", "dev", "all", "hf", "wandb"} <= extras


def test_all_holds_what_the_tests_need() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert {"hub", "diffusers", "app", "docs", "dev"} <= set(re.findall(r"\w+", everything.partition("[")[2]))


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_the_forms_are_yaml(path: Path) -> None:
    assert isinstance(read_yaml(path), dict)


def test_the_workflow_covers_the_versions_and_the_platforms() -> None:
    jobs = read_yaml(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]  # type: ignore[index]
    matrix = jobs["tests"]["strategy"]["matrix"]["include"]
    classified = {
        c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith("Programming Language :: Python :: 3.")
    }
    assert {row["python"] for row in matrix} == classified
    lowest = re.search(r"torch>=([\d.]+)", " ".join(PROJECT["dependencies"]))
    assert lowest is not None
    assert f"{lowest[1]}.0" in {row["torch"] for row in matrix}
    pinned = re.search(r"torch==([\d.]+)", (ROOT / "constraints.txt").read_text())
    assert pinned is not None
    assert pinned[1] in {row["torch"] for row in matrix}
    assert set(jobs["smoke"]["strategy"]["matrix"]["os"]) == {"macos-latest", "windows-latest"}


def test_lint_workflow_and_pre_commit_run_the_same_checks() -> None:
    hooks = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]  # type: ignore[index]
    assert [hook["entry"].split()[:2] for hook in hooks] == [["ruff", "check"], ["ruff", "format"], ["mypy"]]
    for command in ("ruff check .", "ruff format --check .", "mypy"):
        assert command in WORKFLOW
        assert command in (ROOT / "Makefile").read_text()


def test_the_citation_is_that_of_the_readme() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")["preferred-citation"]  # type: ignore[index]
    readme = (ROOT / "README.md").read_text()
    assert citation["title"] in readme.replace("{", "").replace("}", "")
    assert citation["url"].rpartition("/")[2] in readme
    for author in citation["authors"]:
        assert author["family-names"] in readme


def test_every_document_is_on_the_site() -> None:
    pages = re.findall(r"^  - .*: (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert {*pages} == {"index.md", *(path.name for path in (ROOT / "docs").glob("*.md"))}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for name in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(name) is None:
            pytest.skip("needs mkdocs-material and mkdocstrings: pip install 'flowmo[docs]'")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-q",
        "-f",
        ROOT / "mkdocs.yml",
        "-d",
        tmp_path / "site",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "site" / "API" / "index.html").read_text()
    for name in ("flowmo.weights.load.load", "flowmo.FlowMo.tokenize", "flowmo.Tokens.from_bytes", "flowmo.to_pil"):
        assert f'id="{name}"' in page
    assert not re.findall(r'(?:src|href)="https?://(?:fonts|cdn|unpkg)[^"]*', page)
