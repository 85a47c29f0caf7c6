"""The documents stay true: what they name exists, what they should cover is covered, their commands parse."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest

import flowmo
from flowmo import config as configs
from flowmo.cli.main import build_parser
from flowmo.errors import ConfigError
from flowmo.generation.presets import maskgit_397m
from flowmo.training import DistillTrainConfig, PostTrainConfig, TrainConfig
from flowmo.training.configuration.config import STAGES
from flowmo.training.configuration.stored_config import known_settings
from flowmo.training.generator import GeneratorTrainConfig

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "flowmo"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAPER_MAP = (ROOT / "docs" / "PAPER_MAP.md").read_text()
DEVIATIONS = (ROOT / "docs" / "DEVIATIONS.md").read_text()
TRAINING = (ROOT / "docs" / "TRAINING.md").read_text()

EQUATIONS = [f"Eq. {n}" for n in range(1, 15)]
TABLES = [f"Table {n}" for n in range(1, 8)]
SECTIONS = ["Section 3.1", "Section 3.2", "Section 3.4", "Section 3.5", "Section 4.1", "Section 4.2"]
APPENDICES = ["Appendix A.1", "Appendix A.2", "Appendix A.3", "Appendix B", "Appendix C"]
LAST_OF = {"A": 18, "B": 9, "C": 3, "D": 6, "E": 8, "F": 9}
IDS = [f"{letter}{n}" for letter, last in LAST_OF.items() for n in range(1, last + 1)]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of every table, without headings and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        row for i, row in enumerate(table) if not is_rule(row) and not (i + 1 < len(table) and is_rule(table[i + 1]))
    ]


def is_rule(row: list[str]) -> bool:
    return all(set(cell) == {"-"} for cell in row) and len(row[0]) == 3


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def names_in(file: Path) -> set[str]:
    """Everything a file defines at its top, and ``Class.member``."""
    found: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    collect(node.body, f"{prefix}{node.name}.")

    collect(ast.parse(file.read_text()).body, "")
    return found


MAP_ROWS = rows(PAPER_MAP)


@pytest.mark.parametrize("row", MAP_ROWS, ids=[f"{row[0]} {row[1]}" for row in MAP_ROWS])
def test_every_target_of_the_paper_map_exists(row: list[str]) -> None:
    _, _, code, test = row
    assert (code == "not yet") == (test == "not yet")
    for cell, folder in ((code, PACKAGE), (test, ROOT / "tests")):
        targets = code_spans(cell)
        assert targets or cell == "not yet"
        for target in targets:
            file, _, name = target.partition("::")
            assert (folder / file).is_file(), target
            assert name in names_in(folder / file), target


def test_the_paper_map_is_complete() -> None:
    places = {row[0] for row in MAP_ROWS}
    assert {*EQUATIONS, *TABLES, *SECTIONS, *APPENDICES} <= places


def test_every_difference_has_its_line() -> None:
    ids = [row[0] for row in rows(DEVIATIONS)]
    assert [i for i in ids if not i.startswith("O")] == IDS
    own = [i for i in ids if i.startswith("O")]
    assert own == [f"O{n + 1}" for n in range(len(own))]


def test_ids_in_the_code_are_explained() -> None:
    known, cited = {row[0] for row in rows(DEVIATIONS)}, set()
    for file in PACKAGE.rglob("*.py"):
        here = set(re.findall(r"(?:[(;,] ?|see |FACTS )([A-F]\d{1,2})(?=[),;:.])", file.read_text()))
        assert here <= known, file
        cited |= here
    assert len(cited) > 20


@pytest.mark.parametrize("row", [row for row in rows(DEVIATIONS) if row[-1] != "-"], ids=lambda row: row[0])
def test_every_switch_of_the_deviations_works(row: list[str]) -> None:
    for switch in code_spans(row[-1]):
        if switch.startswith("flowmo.load("):
            argument = switch.removeprefix("flowmo.load(").partition("=")[0]
            assert argument in inspect.signature(flowmo.load).parameters
            continue
        flag, *settings = switch.removeprefix("train-generator ").split()
        if flag == "--protocol":
            assert build_parser().parse_args(["evaluate", "m", "d", flag, *settings]).protocol == settings[0]
            continue
        if flag == "evaluate-generator":
            assert build_parser().parse_args([flag, "s", "r", *settings]).reference_crop == settings[1]
            continue
        stages = [entry.config() for entry in STAGES.values()]
        wholes = {"--set": stages, "--config": [flowmo.flowmo_lo()]}
        if switch.startswith("train-generator "):
            wholes = {"--set": [GeneratorTrainConfig()], "--config": [maskgit_397m()]}
        assert any(takes(whole, settings) for whole in wholes[flag]), switch


def takes(whole: object, settings: list[str]) -> bool:
    """Whether a configuration has these settings, with these values."""
    try:
        configs.override(whole, settings)
    except ConfigError:
        return False
    return True


def test_the_training_settings_are_all_listed_with_their_defaults() -> None:
    def flat(data: dict, prefix: str = "") -> dict[str, str]:
        found: dict[str, str] = {}
        for name, value in data.items():
            found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        return found

    plain = {True: "true", False: "false", None: "null"}
    expected = {
        name: plain[value] if isinstance(value, bool | None) else str(value)
        for entry in reversed(STAGES.values())
        for name, value in flat(configs.to_dict(entry.config())).items()
    }
    table, _, _ = TRAINING[TRAINING.index("| setting |") :].partition("\n\n")
    listed = {code_spans(row[0])[0]: row[1] for row in rows(table)}
    assert listed == expected


def test_the_generators_own_settings_are_listed_with_their_defaults() -> None:
    """All others are those of the loop, which TRAINING.md lists."""
    generation = (ROOT / "docs" / "GENERATION.md").read_text()
    table = generation[generation.index("| setting |") : generation.index("`--config` changes")]
    listed = {code_spans(row[0])[0]: row[1] for row in rows(table)}
    own = set(configs.to_dict(GeneratorTrainConfig())) - known_settings()
    assert listed == {name: str(getattr(GeneratorTrainConfig(), name)) for name in own}


COMMANDS = [
    (document.name, shlex.join(words))
    for document in DOCUMENTS
    for block in blocks(document.read_text(), "sh")
    for line in block.replace("\\\n", " ").splitlines()
    if "flowmo" in (words := shlex.split(line, comments=True)) and words[0] not in ("pip", "git")
]


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_commands_in_documents_parse(document: str, line: str) -> None:
    """Every flag exists and has a value that it takes; settings are those of the configurations."""
    words = shlex.split(line)
    arguments = build_parser().parse_args(words[words.index("flowmo") + 1 :])
    if arguments.command == "posttrain":
        configs.override(PostTrainConfig(), arguments.set)
    if arguments.command == "distill":
        configs.override(DistillTrainConfig(), arguments.set)
    if arguments.command == "train":
        configs.override(TrainConfig(), arguments.set)
        configs.override(flowmo.flowmo_mini_64(), arguments.model)
    if arguments.command == "train-generator":
        configs.override(GeneratorTrainConfig(), arguments.set)
        configs.override(maskgit_397m(), arguments.model)


def test_there_are_commands_to_check() -> None:
    assert {"README.md", "TRAINING.md", "GENERATION.md"} <= {document for document, _ in COMMANDS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    packaged = any((PACKAGE / "weights" / "packaged").glob("*.safetensors"))
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if target.startswith("http") or (target == "docs/images/demo.png" and not packaged):
            continue  # the picture is sampled by the packaged model
        assert (document.parent / target).exists(), target


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    wanted = set(
        re.findall(r"^make (\w+)", "\n".join(blocks((ROOT / "README.md").read_text(), "sh")), flags=re.MULTILINE)
    )
    assert wanted == {"demo", "test"}
    assert wanted <= targets
