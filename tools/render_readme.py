"""Write the tables of numbers into README.md and docs/ from results/*.json: python tools/render_readme.py

Each table stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`; what is between them is replaced.
--check writes nothing and ends with 1 where a document says something else than the results.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

from flowmo.comparison.compare import Row
from flowmo.comparison.table import measured_columns, order
from flowmo.evaluation.results import Result, read_result
from flowmo.experiments.ablation_results import conditions, figure_table, table
from flowmo.experiments.ablations import FIGURES
from flowmo.metrics.table import METRICS, column
from flowmo.weights.load import PACKAGED

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
NAMES = ("EVALUATION", "ABLATIONS", "GENERATION", "TRAINING", "SPEED", "LOG")
DOCUMENTS = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in NAMES))
SPEED_OF = f"train-{PACKAGED}"
POSTTRAINING = ("rfid", "kid", "psnr", "ssim", "lpips_alex", "lpips_vgg")
DECODING = {"passes": ("passes", "d"), "images_per_second": ("images/s", ".1f"), "speedup": ("times as fast", ".1f")}
GENERATION = ("fid", "sfid", "kid", "precision", "recall", "agreement")
CONVENTIONS = ("fid", "kid", "precision", "recall", "agreement")
GENERATED = {
    "floor-reconstructions": "the tokenizer's reconstructions, the floor",
    "control-shuffled-labels": "control: the samples with shuffled labels",
    "control-frequencies": "control: each integer from another picture",
    "control-even": "control: even integers",
}
POSTTRAINED = {
    "before": "before",
    "1b": "**after Stage 1B**",
    "1a": "after as many images of Stage 1A, encoder frozen",
}


def protocols() -> str:
    """The packaged model under both protocols at two rates, a line a metric."""
    names = [f"{PACKAGED}-{protocol}{rate}" for rate in ("-18-bits", "") for protocol in ("standard", "published")]
    results = [read_result(RESULTS / f"{name}.json") for name in names]
    titles = [f"{result.content['rate']['payload_bytes']:,.0f} bytes, {result.protocol}" for result in results]
    lines = [f"| | {' | '.join(titles)} |", "|---|" + "---:|" * len(results)]
    each = replace(METRICS[0], name="psnr_each", label=f"{METRICS[0].label}, each picture")
    for metric in (METRICS[0], each, *METRICS[1:]):
        values = [result.content["metrics"].get(metric.name) for result in results]
        if any(value is not None for value in values):
            lines.append(f"| {metric.heading} | " + " | ".join(map(metric.text, values)) + " |")
    entropy = results[-2].content["code"]["bit_entropy"]
    return "\n".join([*lines, "", f"{_conditions(results[-2])} Entropy: {entropy:.3f} bits per bit of the code."])


def rates() -> str:
    """The packaged model at every measured rate, a line a rate."""
    files = [*(RESULTS / "rates").glob("*.json"), *RESULTS.glob(f"{PACKAGED}-standard*.json")]
    results = sorted(map(read_result, files), key=lambda result: result.content["rate"]["payload_bytes"])
    shown = [metric for metric in METRICS if all(metric.name in result.content["metrics"] for result in results)]
    lines = [
        "| bytes | bits per pixel | " + " | ".join(metric.heading for metric in shown) + " |",
        "|---:|---:|" + "---:|" * len(shown),
    ]
    for result in results:
        rate, metrics = result.content["rate"], result.content["metrics"]
        cells = [f"{rate['payload_bytes']:,.0f}", f"{rate['bits_per_pixel']:.3f}"]
        cells += [metric.text(metrics[metric.name]) for metric in shown]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _conditions(results[-1])])


def comparison() -> str:
    """The packaged model, its controls, the thumbnail and the codecs at equal bytes without headers."""
    result = read_result(RESULTS / "comparison.json")
    rows = sorted((row for row in _rows(result) if row.counted in ("payload", None)), key=order)
    shown = measured_columns(rows)
    lines = [
        "| | bytes | " + " | ".join(each.heading for each in shown) + " |",
        "|---|" + "---:|" * (1 + len(shown)),
    ]
    for row in rows:
        size = "-" if row.payload_bytes is None else f"{row.payload_bytes:,.0f}"
        if row.reached < row.count:
            size += f" ({row.reached} of {row.count})"
        name = f"**{row.name}**" if row.group == "model" else row.name
        cells = [each.text(row.metrics.get(each.name)) for each in shown]
        lines.append(f"| {name} | {size} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"{_conditions(result)} Codecs: at most that many bytes, without headers."])


def half_precision() -> str:
    """What weights in bf16 change in each metric of the packaged model."""
    full, half = (read_result(RESULTS / "precision" / name / f"{PACKAGED}-standard.json") for name in ("fp32", "bf16"))
    lines = ["| | fp32 | bf16 | difference |", "|---|---:|---:|---:|"]
    for metric in METRICS:
        a, b = (result.content["metrics"].get(metric.name) for result in (full, half))
        if a is not None and b is not None:
            changed = f"{metric.factor * (b - a):+.2g}"
            lines.append(f"| {metric.heading} | {metric.text(a)} | {metric.text(b)} | {changed} |")
    return "\n".join([*lines, "", _conditions(full)])


def speed() -> str:
    """How fast the packaged model decodes and a model of its size trains on the machine of the results, in words."""
    decoded, trained = (json.loads((RESULTS / f"bench-{name}.json").read_text()) for name in ("decode", SPEED_OF))
    by_steps = {row["num_steps"]: row["images_per_second"] for row in decoded["rows"] if row["guidance_scale"] == 1}
    updates = max(row["speed"]["images_per_second"] for row in trained["measured"] if row["speed"])
    machine = decoded["machine"]
    side = trained["model"]["image_size"]
    processor = machine["cpu"].removesuffix(" Processor")
    where = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)} of an {processor} processor"
    return (
        f"On {where} it decodes {by_steps[1]:.0f} images/s one by one (`flowmo bench decode --batch-size 1`).\n"
        f"A model of its size trains on {updates:.1f} images/s of {side} x {side} pixels with LPIPS of every image "
        "(`flowmo bench train`)."
    )


def posttraining() -> str:
    path = RESULTS / "posttraining.json"
    return posttraining_table(json.loads(path.read_text())) if path.exists() else ""


def posttraining_table(result: dict) -> str:
    """Of ``tools/compare_posttraining.py``: means over the seeds, and below the first model how far the others are."""
    return "\n".join([_seeds_in_words(result), "", *_beside_the_first(result, {}, POSTTRAINED)])


def decoding() -> str:
    path = RESULTS / "decoding.json"
    return decoding_table(json.loads(path.read_text())) if path.exists() else ""


def decoding_table(result: dict) -> str:
    """Of ``tools/compare_decoding.py``: passes and speed beside quality, and how far it is from the first row's."""
    speed, machine = result["speed"], result["speed"]["machine"]
    where = f"{machine.get('gpu', machine['cpu'])}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    conditions = (
        "Passes of the decoder against quality and speed, the same tokens in all rows. "
        f"{_seeds_in_words(result)[:-1]}. Speed: `detokenize` from end to end, batches of {speed['batch_size']}, "
        f"median of {speed['repeats']} rounds of all rows, {where}:"
    )
    return "\n".join([conditions, "", *_beside_the_first(result, DECODING, {})])


def generation() -> str:
    """Samples of a generator between the tokenizer's own reconstructions and the controls, by agreement."""
    results = {path.stem: read_result(path) for path in sorted((RESULTS / "generation").glob("*.json"))}
    first = next(iter(results.values()))
    reference, metrics = first.content["reference"], first.content["metrics"]
    lines = [
        f"{first.data.count:,} pictures in each row; FID and the like against {reference['count']:,} pictures of the "
        f"{reference['split']} part. Agreement: of real pictures {metrics['agreement_reference']:.1%}, by chance "
        f"{metrics['agreement_chance']:.1%}.",
        "",
        f"| | {' | '.join(column(name).heading for name in GENERATION)} |",
        "|---|" + "---:|" * len(GENERATION),
    ]
    by_agreement = sorted(results.items(), key=lambda item: -item[1].content["metrics"]["agreement"])
    for name, result in by_agreement:
        label = GENERATED.get(name, f"samples, {in_words(name)}")
        cells = [column(metric).text(result.content["metrics"].get(metric)) for metric in GENERATION]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def conventions() -> str:
    """Samples of a generator by guidance, temperature and noise as MaskGIT and as TiTok read them."""
    found = []
    for path in (RESULTS / "generation" / "conventions").glob("*.json"):
        convention, _, *settings = path.stem.split("-")
        guidance, temperature, noise = (float(number) for number in settings[::2])
        ours = guidance + (convention == "titok")
        found.append(((ours, temperature, noise, convention), guidance, read_result(path)))
    found.sort(key=lambda each: each[0])
    first = found[0][2]
    reference, metrics = first.content["reference"], first.content["metrics"]
    titles = ["read as", "`--guidance`", "s of u + s (c - u)", "`--temperature`", "`--choice-noise`"]
    lines = [
        f"{first.data.count:,} pictures in each row, against {reference['count']:,} pictures of the "
        f"{reference['split']} part. Agreement, with its standard error: of real pictures "
        f"{metrics['agreement_reference']:.1%}, by chance {metrics['agreement_chance']:.1%}.",
        "",
        f"| {' | '.join(titles + [column(name).heading for name in CONVENTIONS])} |",
        "|---|" + "---:|" * (len(titles) - 1 + len(CONVENTIONS)),
    ]
    for (ours, temperature, noise, convention), guidance, result in found:
        numbers = result.content["metrics"]
        cells = [f"{value:g}" for value in (guidance, ours, temperature, noise)]
        cells += [column(name).text(numbers.get(name)) for name in CONVENTIONS]
        share = numbers["agreement"]
        cells[-1] += f" +- {100 * (share * (1 - share) / result.data.count) ** 0.5:.1f}"
        lines.append(f"| {convention} | {' | '.join(cells)} |")
    return "\n".join(lines)


def in_words(samples: str) -> str:
    """guidance-2-decoder-1.5 -> guidance 2, decoder 1.5"""
    return re.sub(r"([\d.]+)-", r"\1, ", samples).replace("-", " ")


def _seeds_in_words(result: dict) -> str:
    data, seeds = result["data"], result["seeds"]
    return (
        f"{data['count']} pictures ({data['description']}), {len(seeds)} seed{'s' * (len(seeds) > 1)} of noise, "
        f"{result['protocol']} protocol. Means over the seeds; in brackets the difference from the first row: its 95 % "
        "interval over pictures, or of rFID and KID its range over seeds:"
    )


def _beside_the_first(result: dict, plain: dict[str, tuple[str, str]], labels: dict[str, str]) -> list[str]:
    """A line a model: the numbers of ``plain``, then its metrics, with their differences from the first model's."""
    columns = [name for name in POSTTRAINING if name in _first(result)["metrics"]]

    def titled(name: str) -> str:
        seeds = len(result["metric_seeds"][name])
        return column(name).heading + (f", {seeds} seed{'s' * (seeds > 1)}" if seeds < len(result["seeds"]) else "")

    titles = [title for title, _ in plain.values()] + list(map(titled, columns))
    lines = [f"| | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    for label, model in result["models"].items():
        cells = [format(model[name], form) for name, (_, form) in plain.items()]
        for name in columns:
            form, scale = column(name).format, column(name).factor
            cell, difference = format(scale * model["metrics"][name], form), model["difference"].get(name)
            if difference and model is not _first(result):
                ends = difference.get("by_seed") or [difference["low"], difference["high"]]
                shown = dict.fromkeys(format(scale * end, f"+{form}") for end in (min(ends), max(ends)))
                cell += f" ({' to '.join(shown)})"
            cells.append(cell)
        lines.append(f"| {labels.get(label, label)} | {' | '.join(cells)} |")
    return lines


def sizes() -> str:
    path = RESULTS / "sizes.json"
    if not path.exists():
        return "Not measured yet: it is done for the packaged model."
    return sizes_tables(json.loads(path.read_text()))


def sizes_tables(result: dict) -> str:
    """Of ``tools/measure_sizes.py``: quality by size, single photographs, borders of tiles, memory and time."""
    rates, machine = [str(bits) for bits in result["bits_per_token"]], result["machine"]
    shown = ("bytes", column("psnr").heading, column("lpips_alex").heading)
    heads = [f"{bits} bits a token: {what}" for bits in rates for what in shown]
    lines = [f"| {result['model']} | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name, row in result.items():
        if isinstance(row, dict) and "rates" in row:
            size = f"{row['width']} x {row['height']}"
            cells = [
                cell
                for bits in rates
                for one in [row["rates"][bits]]
                for cell in (f"{one['bytes']:,}", f"{one['psnr']:.2f}", f"{one['lpips_alex']:.3f}")
            ]
            lines.append(f"| {size if name == size else f'{name}, {size}'} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Pixels, width first; {result['data']}, each scaled down to 64 and 128 pixels; 512 x 512 and 768 x 512 are "
        "windows of several photographs side by side, so that details are as fine as those of 256 pixels. A row "
        "with a name is one photograph as it is.",
    ]
    steps = ", ".join(f"{seam['ratio']:.2f} times at {bits} bits" for bits, seam in result["seams"].items())
    lines += [
        "",
        f"Step of the error across the borders of tiles, against that across the other borders of patches: {steps}.",
    ]
    large = [(name.removeprefix("large "), row) for name, row in result.items() if name.startswith("large ")]
    if large:
        lines += [
            "",
            "| pixels | tokenize: s | peak MB | detokenize: s | peak MB |",
            "|---|---:|---:|---:|---:|",
        ]
        for name, row in large:
            cells = [f"{row[verb][what]:,}" for verb in ("tokenize", "detokenize") for what in ("seconds", "peak_mb")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines += [
            "",
            f"Commands, on {machine['cpu']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}; loading "
            f"the model alone takes {result['loading']['peak_mb']:,} MB and {result['loading']['seconds']} s.",
        ]
    return "\n".join(lines)


def ablations(name: str) -> str:
    """Return a table or figure of the paper's ablations, or what they are of."""
    result = json.loads((RESULTS / "ablations.json").read_text())
    if name == "conditions":
        return conditions(result)
    return figure_table(result, name) if name in FIGURES else table(result, name)


ABLATIONS = ("conditions", *FIGURES, "Table 3", "Table 4", "Table 5", "Table 7")
TABLES = {
    **{f"ablations {name}": partial(ablations, name) for name in ABLATIONS},
    "speed": speed,
    "sizes": sizes,
    "protocols": protocols,
    "rates": rates,
    "half precision": half_precision,
    "comparison": comparison,
    "posttraining": posttraining,
    "decoding": decoding,
    "generation": generation,
    "conventions": conventions,
}


def rendered(text: str) -> str:
    """A document with every table made anew."""
    for name, table_of in TABLES.items():
        marked = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        if marked.search(text):
            content = table_of()
            text = marked.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)
    return text


def _first(result: dict) -> dict:
    return next(iter(result["models"].values()))


def _rows(result: Result) -> list[Row]:
    return [Row(**row) for row in result.content["rows"]]


def _conditions(result: Result) -> str:
    """What the numbers are of, in a sentence."""
    model, data = result.models[0], result.data
    height, width = data.image_size
    s = model.sampler
    assert s is not None
    steps = f"{s.num_steps} step{'s' * (s.num_steps != 1)}, rho {s.rho:g}, guidance {s.guidance_scale:g}"
    return (
        f"{data.count:,} pictures of {height} x {width} pixels ({data.description}, {data.split}), {model.name} "
        f"(fingerprint {model.fingerprint}), {steps}, {result.seed}, commit {result.code.get('commit', '?')}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, end with 1 where something differs")
    arguments, code = parser.parse_args(), 0
    for document in DOCUMENTS:
        text = document.read_text()
        new = rendered(text)
        if new != text:
            code = 1
            if not arguments.check:
                document.write_text(new)
        print(f"{document.name}: {'as the results' if new == text else 'differs' if arguments.check else 'rendered'}")
    return code if arguments.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
