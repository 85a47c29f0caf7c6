"""The model card: what a model is, in words, and in the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..image_utils.regular import check_regular
from ..metrics.table import Column, columns
from ..tokenizer import FlowMo
from .describe import describe_model

PAPER = "[Flow to the Mode](https://kylesargent.github.io/flowmo) (Sargent et al., ICCV 2025, arXiv:2503.11056)"


def tokenizer_card(model: FlowMo, license: str, result: Path | None = None) -> str:
    """Return the card of a tokenizer, Markdown with YAML front matter.

    result: a file of ``flowmo evaluate``, whose numbers go in with their conventions. Raises WeightsError for a result
    that cannot be read or is another model's.
    """
    facts, config = describe_model(model), model.config
    measured = None if result is None else _read(result, facts["fingerprint"])
    front = _front(license, "image-to-image", ["image-tokenizer", "vector-quantization"], list(_metrics(measured)))
    pixels = f"{config.image_size} x {config.image_size}"
    return f"""{front}
# FlowMo tokenizer

A diffusion autoencoder after {PAPER}: it codes {pixels} pixels as {config.num_tokens} tokens of \
{config.bits_per_token} bits ({facts["bytes_per_image"]} bytes, {config.bits_per_pixel:.3f} bits per pixel) and \
samples an image that fits them.

```python
import flowmo

model = flowmo.load("owner/name")  # this repository
images = model.reconstruct("photo.jpg")
flowmo.to_pil(images)[0].save("reconstruction.png")
```

- parameters: {facts["parameters"]["total"]:,} (encoder {facts["parameters"]["encoder"]:,})
- fingerprint of its token files: {facts["fingerprint"]}
- sampler by default: {config.sampler.num_steps} steps, guidance {config.sampler.guidance_scale:g}
{_table(measured)}"""


def generator_card(generator: Any, license: str, result: Path | None = None) -> str:
    """Return the card of a generator of tokens; as :func:`tokenizer_card`."""
    config = generator.config
    measured = None if result is None else _read(result, None)
    front = _front(license, "unconditional-image-generation", ["masked-transformer"], list(_metrics(measured)))
    count = sum(p.numel() for p in generator.parameters())
    named = ", ".join(generator.classes[:5]) + (" ..." if len(generator.classes) > 5 else "")
    return f"""{front}
# FlowMo generator

A masked transformer (MaskGIT) over the tokens of a FlowMo tokenizer, after Section 3.5 of {PAPER}: \
{config.num_classes} classes, {config.sequence_length} integers an image, {count:,} parameters.

```sh
flowmo generate --generator owner/name --class 0 -n 8 --out generated
```

- the tokenizer whose tokens it makes: fingerprint {config.tokens.fingerprint}
- classes: {named or "without names"}
{_table(measured)}"""


def _front(license: str, pipeline: str, tags: list[str], metrics: list[str]) -> str:
    lines = ["---", "library_name: flowmo", f"pipeline_tag: {pipeline}", f"license: {license}", "tags:"]
    lines += [f"- {tag}" for tag in ("flowmo", *tags)]
    lines += ["metrics:", *(f"- {name}" for name in metrics)] if metrics else []
    return "\n".join([*lines, "---", ""])


def _read(path: Path, fingerprint: str | None) -> dict[str, Any]:
    try:
        check_regular(path)
        content = json.loads(path.read_text(encoding="utf-8"))
        models, metrics = content["models"], content["content"]["metrics"]
        if not all(isinstance(value, (int, float)) for value in metrics.values()):
            raise ValueError("its metrics are not numbers")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is no result of 'flowmo evaluate' that a model card can take: {error!r}") from None
    if fingerprint is not None and all(model.get("fingerprint") != fingerprint for model in models):
        raise WeightsError(f"{path} was measured with another model, not the one of fingerprint {fingerprint}")
    return content


def _metrics(measured: dict[str, Any] | None) -> dict[str, float]:
    found = {} if measured is None else measured["content"]["metrics"]
    return {name: found[name] for name in columns() if name in found} or dict(found)


def _table(measured: dict[str, Any] | None) -> str:
    if measured is None:
        return ""
    numbers = _metrics(measured)
    data = measured.get("data", {})
    shown = [columns().get(name, Column(name, name, ".4g", "neither")) for name in numbers]
    lines = ["", "| " + " | ".join(column.heading for column in shown) + " |", "|" + "---:|" * len(numbers)]
    lines.append("| " + " | ".join(column.text(numbers[column.name]) for column in shown) + " |")
    images = f"{data.get('count', '?')} images ({data.get('description', '?')})"
    commit = measured.get("code", {}).get("commit", "?")
    lines += ["", f"{images}, protocol {measured.get('protocol')!r}, seed: {measured.get('seed')}, code {commit}."]
    return "\n".join([*lines, "Only numbers of the same protocol and as many images compare.", ""])
