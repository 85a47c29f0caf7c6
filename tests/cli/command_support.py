"""What the tests of the commands share: the sample pictures, and the result of a command."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from flowmo import samples

PAYLOAD = 16 * 18 // 8  # bytes of the small model's tokens
PICTURES = samples.paths()
CHECKS = ("--validation-count", 2, "--no-rfid")  # of posttrain and distill
CAT = next(path for path in PICTURES if path.stem == "cat")


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Result]


def resolved(flowmo: Command, command: str, *arguments: object) -> tuple[Any, Any]:
    """Configurations of model and training that ``--dry-run`` prints."""
    result = flowmo(command, "d", "o", *arguments, "--dry-run", model=False)
    assert result.code == 0, result.err
    decoder = json.JSONDecoder()
    model, end = decoder.raw_decode(result.out)
    return model, decoder.raw_decode(result.out[end:].lstrip())[0]
