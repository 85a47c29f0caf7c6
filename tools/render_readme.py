"""Write the tables of README.md from results/*.json, between its numbers markers: python tools/render_readme.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
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


def main() -> None:
    result = json.loads((ROOT / "results" / "flowmo-mini-64.json").read_text())
    readme = ROOT / "README.md"
    text = readme.read_text()
    pattern = r"(<!-- numbers:begin -->\n).*?(<!-- numbers:end -->)"
    if not re.search(pattern, text, re.S):
        raise SystemExit("README.md has no numbers markers")
    readme.write_text(re.sub(pattern, lambda m: f"{m[1]}{table(result)}\n{m[2]}", text, flags=re.S))


if __name__ == "__main__":
    main()
