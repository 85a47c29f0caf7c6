"""Write the tables of README.md from results/*.json, between its numbers markers: python tools/render_readme.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
POSTTRAINING = {
    "rfid": ("rFID", ".2f", 1),
    "kid": ("KID x1000", ".2f", 1000),
    "psnr": ("PSNR (dB)", ".2f", 1),
    "ssim": ("SSIM", ".3f", 1),
    "lpips_alex": ("LPIPS Alex", ".4f", 1),
    "lpips_vgg": ("LPIPS VGG", ".4f", 1),
}
POSTTRAINED = {
    "before": "before",
    "1b": "**after Stage 1B**",
    "1a": "after as many images of Stage 1A, encoder frozen",
}
LABELS = {"sampler": "**reconstruction** (stored sampler)", "one step": "reconstruction in one step"}


def table(result: dict) -> str:
    sampler = result["sampler"]
    lines = [
        f"{result['count']} validation pictures, {result['bytes']:.0f} bytes a picture "
        f"({result['bits_per_pixel']:.3f} bits per pixel), {sampler['num_steps']} steps, rho {sampler['rho']}, "
        f"guidance {sampler['guidance_scale']}:",
        "",
        "| | PSNR (dB), higher is better | LPIPS Alex, lower is better | LPIPS VGG, lower is better |",
        "|---|---:|---:|---:|",
    ]
    for name, row in result["rows"].items():
        numbers = f"{row['psnr']:.2f} | {row['lpips_alex']:.3f} | {row['lpips_vgg']:.3f}"
        lines.append(f"| {LABELS.get(name, name)} | {numbers} |")
    share = 100 * result["share_with_lower_lpips_than_thumbnail"]
    lines += ["", f"Closer to the picture than the thumbnail by LPIPS (Alex): {share:.1f} % of the pictures."]
    return "\n".join(lines)


def posttraining_table(result: dict) -> str:
    """Of ``tools/compare_posttraining.py``: means over the seeds, and below the first model how far the others are."""
    data, columns = result["data"], [name for name in POSTTRAINING if name in _first(result)["metrics"]]

    def titled(name: str) -> str:
        seeds = len(result["metric_seeds"][name])
        return POSTTRAINING[name][0] + (f", {seeds} seed{'s' * (seeds > 1)}" if seeds < len(result["seeds"]) else "")

    lines = [
        f"{data['count']} pictures ({data['description']}), {len(result['seeds'])} seeds of noise, "
        f"{result['protocol']} protocol. Means over the seeds; in brackets the difference from the first row: its 95 % "
        "interval over pictures, or of rFID and KID its range over seeds:",
        "",
        f"| | {' | '.join(map(titled, columns))} |",
        "|---|" + "---:|" * len(columns),
    ]
    for label, model in result["models"].items():
        cells = []
        for name in columns:
            _, form, scale = POSTTRAINING[name]
            cell, difference = format(scale * model["metrics"][name], form), model["difference"].get(name)
            if difference and model is not _first(result):
                ends = difference.get("by_seed") or [difference["low"], difference["high"]]
                cell += f" ({scale * min(ends):+{form}} to {scale * max(ends):+{form}})"
            cells.append(cell)
        lines.append(f"| {POSTTRAINED.get(label, label)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _first(result: dict) -> dict:
    return next(iter(result["models"].values()))


def put(text: str, marker: str, content: str) -> str:
    pattern = rf"(<!-- {marker}:begin -->\n).*?(<!-- {marker}:end -->)"
    if not re.search(pattern, text, re.S):
        raise SystemExit(f"README.md has no {marker} markers")
    return re.sub(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.S)


def main() -> None:
    readme, results = ROOT / "README.md", ROOT / "results"
    text = put(readme.read_text(), "numbers", table(json.loads((results / "flowmo-mini-64.json").read_text())))
    if (results / "posttraining.json").exists():
        content = posttraining_table(json.loads((results / "posttraining.json").read_text()))
        text = put(text, "posttraining", content)
    readme.write_text(text)


if __name__ == "__main__":
    main()
