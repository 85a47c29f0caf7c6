"""The Python of docs/GENERATION.md runs, and does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowmo.training.data.token_data import read_token_set

TEXT = (Path(__file__).parents[2] / "docs" / "GENERATION.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def example(function: str) -> Any:
    source = next(code for code in EXAMPLES if f"def {function}(" in code)
    names: dict[str, Any] = {}
    exec(compile(source, "docs/GENERATION.md", "exec"), names)
    return names[function]


def test_another_tokenizers_shard_can_be_trained_on(tmp_path: Path) -> None:
    indices = torch.randint(2**14, (4, 16, 2))
    example("shard_of")(indices, [0, 1, 1, 0], list("abcd"), ["cat", "dog"], tmp_path / "other.shard")
    data = read_token_set(tmp_path / "other.shard")
    assert (data.layout.fingerprint, data.classes, data.num_classes) == ("11a3a6e2", ["cat", "dog"], 2)
    assert torch.equal(data.rows(range(4))[0], indices.flatten(1))


def test_another_generator_can_be_decoded() -> None:
    wanted = torch.tensor([[3, 1, 2, 0], [0, 2, 1, 3]])

    def predict(tokens: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        sure = 50.0 * torch.nn.functional.one_hot(wanted[labels.clamp(min=0)], 4)
        return torch.where((labels >= 0)[:, None, None], sure, torch.zeros_like(sure))

    assert torch.equal(example("draw")(predict, [1, 0, 1], 4), wanted[[1, 0, 1]])


def test_no_example_of_generation_is_forgotten() -> None:
    assert len(EXAMPLES) == 2
