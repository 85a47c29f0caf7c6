"""Put evaluations of models at several noise seeds together (Table 5); `tools/render_readme.py` makes the table.

    python tools/compare_posttraining.py results/posttraining.json NAME=RESULT,RESULT,... NAME=RESULT,... ...

RESULT: the JSON that `flowmo evaluate` wrote of the model, one a seed, in the same order for all; its table of pictures
lies beside it. Every model is compared with the first one. runs/posttrain.sh makes them all.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from flowmo.evaluation.across_seeds import compare_seeds
from flowmo.files import replacing
from flowmo.provenance import code_version


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=RESULT,RESULT,...")
    arguments = parser.parse_args()
    named = dict(text.split("=", 1) for text in arguments.models)
    content = compare_seeds({name: [Path(path) for path in paths.split(",")] for name, paths in named.items()})
    with replacing(arguments.out) as part:
        part.write_text(json.dumps(content | {"code": code_version()}, indent=1, allow_nan=False) + "\n")
    for name, model in content["models"].items():
        print(name)
        for metric, value in model["metrics"].items():
            difference = model["difference"].get(metric, {})
            words = f"{value:10.4f}"
            if "mean" in difference:
                words += f"   {difference['mean']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"
            elif difference:
                words += "   by seed " + ", ".join(f"{d:+.4f}" for d in difference["by_seed"])
            print(f"  {metric:12} {words}")


if __name__ == "__main__":
    main()
