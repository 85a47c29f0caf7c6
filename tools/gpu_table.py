"""Print what ``runs/gpu_day.sh`` measured as tables: python tools/gpu_table.py results/gpu."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: str) -> None:
    parts = {path.stem: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))}
    facts = next((part["machine"] for part in parts.values() if "machine" in part), None)
    if facts is None:
        print("Nothing was measured.")
        return
    print(f"{facts.get('gpu', facts['cpu'])}, torch {facts['torch']}.")
    for part in parts.values():
        {"device": device, "decode": decode, "train": train}.get(part["what"], lambda part: None)(part)
    golden = parts.get("golden")
    print(f"\nThe released model's own numbers: {'agree' if golden else 'were not compared'}.")
    log = Path(folder) / "run" / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    rates = [line["images_per_s"] for line in lines if "images_per_s" in line]
    if rates:
        print(f"\nA training: {lines[-1].get('images', 0):,} images, {rates[-1]:.4g} images/s in the end.")


def device(part: dict[str, Any]) -> None:
    for name, flops in part["ceiling_flops"].items():
        print(f"\nMatrix products in {name}: {flops / 1e12:.4g} TFLOP/s at most.")
    table(
        ["difference from the CPU's float32", "image", "loss", "gradient", "same tokens", ""],
        [
            [a["name"], *(number(a[k], ".2g") for k in ("image", "loss", "gradient")), number(a["tokens"], ".2%"),
             "good" if a["good"] else f"WRONG {a['why'] or ''}"]
            for a in part["agreements"]
        ],
    )  # fmt: skip
    table(
        [f"attention of {part['shape']}, batches of {part['batch_size']}", "ms forward", "ms both", "of the ceiling"],
        [
            [f"{k['name']}, {k['dtype']}", *(number(k[n] and 1e3 * k[n], ".3f") for n in ("forward", "both")),
             number(k["flops"] and k["flops"] / part["ceiling_flops"][k["dtype"]], ".1%")]
            for k in part["attention"]
        ],
    )  # fmt: skip


def decode(part: dict[str, Any]) -> None:
    rows = part["sampler_ablation"]["rows"]
    table(
        [f"{part['model']}, {part['dtype']}, batches of {part['batch_size']}", "images/s", "times plain",
         "s/pass", "difference", "of the ceiling"],
        [
            [r["name"], number(r["images_per_second"], ".4g"), number(r["ratio"], ".2f"),
             number(r["seconds_per_pass"], ".4f"), number(r["difference"], ".1g"), number(r.get("utilisation"), ".1%")]
            for r in rows
        ],
    )  # fmt: skip


def train(part: dict[str, Any]) -> None:
    loader = part["loader"]
    print(f"\nLoader alone: {loader['images_per_second']:.4g} images/s by {loader['workers']} processes.")
    rows = []
    for m in part["measured"]:
        speed = m["speed"] or {}
        memory = speed.get("memory")
        rows.append([
            f"{m['micro_batch']} images{', compiled' if m['compile'] else ''}",
            number(speed.get("images_per_second"), ".4g"),
            number(speed.get("utilisation"), ".1%"),
            number(memory and memory / 2**30, ".2f"),
            f"{m['estimate'] / 2**30:.2f}",
            number(memory and memory / m["estimate"], ".2f") if memory else m["why"],
        ])  # fmt: skip
    table([f"training step of {part['preset']}", "images/s", "of the ceiling", "GiB", "estimated", "ratio"], rows)


def number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def table(header: list[str], rows: list[list[str]]) -> None:
    print()
    for row in [header, ["---", *["---:"] * (len(header) - 1)], *rows]:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main(sys.argv[1])
