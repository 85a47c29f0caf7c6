"""Puts trained models into the package, makes the first the default, and removes those that they replace.

    python tools/install_models.py OUT/package [SMALL/package ...] [--generator FILE] [--remove NAME ...] [--dry-run]

OUT/package: a folder of tools/package_model.py (the end of runs/packaged.sh). In one go: the weights into the package;
`flowmo.load()` and the default of every command; the model card of the packaged weights. `make demo` and `flowmo
generate` follow. --generator: a file of a generator, which becomes the packaged one.
--remove: packaged weights by their names, tokenizers or generators.

Nothing is changed where the result would not be whole: weights other than their preset in presets.py, a generator whose
tokenizer is not packaged, or 64 MB and more of weights together. Results and documents are then measured anew:
docs/RELEASE.md, "Packaging", has the commands.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from package_model import MOST_BYTES, differs, table

from flowmo.errors import FlowMoError, WeightsError
from flowmo.files import replacing
from flowmo.generation import load_generator
from flowmo.presets import PRESETS, preset
from flowmo.weights import load_model

ROOT = Path(__file__).parents[1]


class Tree:
    """The packaged weights in a source tree."""

    def __init__(self, root: Path) -> None:
        package = root / "src" / "flowmo"
        self.tokenizers, self.generators = package / "weights" / "packaged", package / "generation" / "packaged"
        self.default, self.default_generator = package / "weights" / "load.py", package / "generation" / "files.py"

    def files(self) -> dict[str, Path]:
        """Return all packaged weights by name."""
        return {f.stem: f for folder in (self.tokenizers, self.generators) for f in folder.glob("*.safetensors")}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="+", type=Path, help="folders of tools/package_model.py, the default first")
    parser.add_argument("--generator", type=Path, help="weights of a generator, such as maskgit-mini.safetensors")
    parser.add_argument("--remove", nargs="+", default=[], metavar="NAME", help="packaged weights that go")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout (default: this one)")
    parser.add_argument("--dry-run", action="store_true", help="check and say what would be done, nothing else")
    arguments = parser.parse_args(argv)
    try:
        install(arguments)
    except FlowMoError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def install(arguments: argparse.Namespace) -> None:
    """Check everything, then do it. Raises WeightsError."""
    tree, cards = Tree(arguments.tree), [read_card(folder) for folder in arguments.packages]
    names = [card["name"] for card in cards]
    tokenizers = {name: folder / f"{name}.safetensors" for name, folder in zip(names, arguments.packages, strict=True)}
    generators = {arguments.generator.stem: arguments.generator} if arguments.generator else {}
    present = tree.files()
    if unknown := set(arguments.remove) - set(present):
        raise WeightsError(f"no packaged weights {', '.join(unknown)} to remove; there are {', '.join(present)}")
    for name, path in tokenizers.items():
        check_preset(name, path)
    after = {name: path for name, path in (present | tokenizers | generators).items() if name not in arguments.remove}
    check_size(after)
    check_generators(after, tree)
    for name, path in after.items():
        print(f"{path.stat().st_size / 1e6:6.1f} MB  {name}{'' if path == present.get(name) else ', new'}")
    print(f"{sum(path.stat().st_size for path in after.values()) / 1e6:6.1f} MB  together; default {names[0]}")
    if arguments.dry_run:
        return
    for name in arguments.remove:
        present[name].unlink()
    for paths, folder in ((tokenizers, tree.tokenizers), (generators, tree.generators)):
        for name, path in paths.items():
            with replacing(folder / f"{name}.safetensors") as part:
                shutil.copyfile(path, part)
    write_cards(tree.tokenizers / "README.md", cards, set(after))
    set_constant(tree.default, "PACKAGED", names[0])
    for name in generators:
        set_constant(tree.default_generator, "PACKAGED_GENERATOR", name)


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of a package. Raises WeightsError where there is none."""
    try:
        card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    except OSError as error:
        raise WeightsError(f"{folder} is no folder of tools/package_model.py: {error}") from None
    return card


def check_preset(name: str, path: Path) -> None:
    """Raise WeightsError unless weights are of the preset of their name, but for the sampler."""
    config = load_model(path).config
    if name not in PRESETS or differs(config, preset(name)):
        raise WeightsError(f"{path} is not the preset {name!r} of presets.py: put what differs there first")


def check_size(after: dict[str, Path]) -> None:
    """Raise WeightsError where all weights together are too many bytes."""
    total = sum(path.stat().st_size for path in after.values())
    if total >= MOST_BYTES:
        each = ", ".join(f"{name} {path.stat().st_size / 1e6:.1f}" for name, path in after.items())
        raise WeightsError(
            f"all packaged weights would be {total / 1e6:.1f} MB ({each}), and less than {MOST_BYTES / 1e6:.0f} are "
            "allowed; --remove those that these models replace"
        )


def check_generators(after: dict[str, Path], tree: Tree) -> None:
    """Raise WeightsError for a generator whose tokens none of the tokenizers decodes."""
    prints, wanted = set(), {}
    for name, path in after.items():
        if name in PRESETS:
            prints.add(f"{load_model(path).fingerprint():08x}")
        else:
            wanted[name] = load_generator(path).config.tokens.fingerprint
    for name, fingerprint in wanted.items():
        if fingerprint not in prints:
            raise WeightsError(
                f"the generator {name} makes tokens of the tokenizer {fingerprint}, which would not be packaged; keep "
                "that one, or give the generator's successor by --generator and --remove this one"
            )


def write_cards(path: Path, cards: list[dict[str, Any]], kept: set[str]) -> None:
    """Write the cards of new models before those of models that stay, each a chapter "# NAME"."""
    new = {card["name"]: card_text(card) for card in cards}
    chapters = [chapter.strip() for chapter in re.split(r"(?m)^(?=# )", path.read_text()) if chapter.strip()]
    old = {chapter.splitlines()[0].removeprefix("# "): chapter for chapter in chapters}
    stay = [chapter for name, chapter in old.items() if name in kept and name not in new]
    with replacing(path) as part:
        part.write_text("\n\n".join([*new.values(), *stay]) + "\n")


def card_text(card: dict[str, Any]) -> str:
    """Return the model card of one model in Markdown."""
    config = preset(card["name"])
    bits, seen = config.bits_per_token, card["about"].get("images")
    patch = config.transform.patch_size if config.transform else config.encoder.patch_size
    lines = [
        f"# {card['name']}",
        "",
        f"- **What it does**: codes pictures of any size, at any rate up to {bits} bits a token of {patch} x {patch}",
        f"  pixels ({config.bits_per_pixel:.3f} bits per pixel), and decodes them again.",
        f"- **Size**: {card['parameters'] / 1e6:.1f} M parameters, half precision, {card['bytes'] / 1e6:.1f} MB;",
        f"  fingerprint {card['fingerprint']}.",
        "- **Trained**: from a closed-form code of photographs (`flowmo fit-transform`)"
        + (f"; its last phase saw {seen:,} images." if seen else "."),
        "  runs/packaged.sh is the recipe, docs/LOG.md tells how it went.",
        "- **Use**: research. The weights learned from photographs that belong to their owners and were used for",
        "  research.",
    ]
    if card["rates"]:
        lines += ["", table(card["rates"]).rstrip()]
    return "\n".join(lines)


def set_constant(path: Path, name: str, value: str) -> None:
    """Give the constant of a module another text. Raises WeightsError where the module has no such line."""
    text, count = re.subn(rf'^{name} = ".*"$', f'{name} = "{value}"', path.read_text(), flags=re.MULTILINE)
    if count != 1:
        raise WeightsError(f"{path} has {count} lines that begin with {name} =, and one was expected")
    with replacing(path) as part:
        part.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
