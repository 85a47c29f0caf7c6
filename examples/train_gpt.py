"""A small GPT of the library transformers over the tokens of a FlowMo model, and samples of it.

    flowmo tokenize photos/ --size 128 --bits-per-token 18 --labels --out tokens.npy
    python examples/train_gpt.py tokens.npy --steps 2000 --out samples.png

The lines that read the tokens come first; the rest is a plain training loop, to be replaced by your own.
Needs: pip install 'flowmo[examples]'.

A CPU takes minutes for

    --steps 500 --width 128 --depth 4 --label 0

which is enough to see whether tokens are learned: the loss of images held out is printed beside that of a histogram of
each place, and of no knowledge at all. Objects take a longer training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import flowmo


def mixed(labels: np.ndarray) -> np.ndarray:
    """Return the rows in an order whose last ones, which are held out, are of all classes: mixed where they stand class
    by class, as those of class folders do."""
    rows = np.arange(len(labels))
    return np.random.default_rng(0).permutation(rows) if (np.diff(labels) >= 0).all() else rows


def main() -> None:
    parser = argparse.ArgumentParser(description="train a small GPT over tokens, then sample from it")
    parser.add_argument("tokens", type=Path, help="file of 'flowmo tokenize DATA --out tokens.npy'")
    parser.add_argument("--model", default="flowmo-mini", help="tokenizer that made the tokens")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--label", type=int, help="class of the samples (default: any)")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("samples.png"))
    arguments = parser.parse_args()

    tokens = np.load(arguments.tokens, mmap_mode="r")  # n x length, never whole in memory
    facts = json.loads(arguments.tokens.with_suffix(".json").read_text())  # vocabulary, order, fingerprint
    labels = np.load(arguments.tokens.with_name(facts["labels"])) if facts["labels"] else np.zeros(len(tokens), int)

    tokenizer = flowmo.load(arguments.model)
    if f"{tokenizer.fingerprint():08x}" != facts["fingerprint"]:
        raise SystemExit(f"{arguments.tokens} was made by another tokenizer than {arguments.model}")

    torch.manual_seed(0)
    vocabulary, length = facts["vocabulary"], facts["length"]
    classes = int(labels.max()) + 1
    if arguments.label is not None and not 0 <= arguments.label < classes:
        raise SystemExit(f"there is no class {arguments.label}; {arguments.tokens} has 0 to {classes - 1}")
    if len(tokens) < 2:
        raise SystemExit(f"{arguments.tokens} has {len(tokens)} images; one to train on and one to hold out are needed")
    row_order = mixed(labels)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    gpt = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary + classes,  # a class is the first token of its images
            n_positions=length + 1,
            n_embd=arguments.width,
            n_layer=arguments.depth,
            n_head=max(1, arguments.width // 64),
            bos_token_id=None,
            eos_token_id=None,
        )
    ).to(device)
    gpt.loss_type = "ForCausalLM"  # what it takes anyway, else it warns that its name does not say so
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.05)
    order = np.random.default_rng(0)
    held_out = max(1, min(len(tokens) // 20, 256))  # the last images in this order are not trained on

    def rows_of(places: np.ndarray | slice) -> torch.Tensor:
        rows = row_order[places]
        first = vocabulary + labels[rows][:, None]
        return torch.from_numpy(np.concatenate([first, tokens[rows].astype(np.int64)], 1)).to(device)

    known, held = row_order[:-held_out], row_order[-held_out:]
    counts = [np.bincount(tokens[known, j], minlength=vocabulary) + 1.0 for j in range(length)]
    histogram = -np.mean([np.log(c / c.sum())[tokens[held, j]].mean() for j, c in enumerate(counts)])

    def validate() -> float:
        with torch.no_grad():
            parts = rows_of(slice(len(tokens) - held_out, None)).split(arguments.batch_size)
            total = sum(gpt.eval()(part, labels=part).loss.item() * len(part) for part in parts)
        gpt.train()
        return total / held_out

    for step in range(1, arguments.steps + 1):
        batch = rows_of(order.integers(len(tokens) - held_out, size=arguments.batch_size))
        loss = gpt(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(gpt.parameters(), 1.0)
        optimizer.step()
        if step == 1 or step % max(1, arguments.steps // 10) == 0:
            print(
                f"step {step}: {loss.item():.3f} nats a token, {validate():.3f} of images held out "
                f"({np.log(vocabulary):.3f} knows nothing, {histogram:.3f} a histogram of each place)",
                flush=True,
            )

    wanted = order.integers(classes, size=arguments.samples) if arguments.label is None else [arguments.label]
    start = torch.tensor(np.resize(wanted, arguments.samples) + vocabulary, device=device)[:, None]
    with torch.no_grad():
        made = gpt.eval().generate(
            start,
            attention_mask=torch.ones_like(start),
            min_new_tokens=length,
            max_new_tokens=length,
            do_sample=True,
            top_k=0,
            temperature=arguments.temperature,
            suppress_tokens=list(range(vocabulary, vocabulary + classes)),
            pad_token_id=0,
        )
    drawn = made[:, 1:].cpu().numpy().reshape(-1, facts["num_tokens"], facts["groups_per_token"])
    kind = facts["bits_per_group"], tuple(facts["image_size"]), facts["bit_order"]
    images = flowmo.Tokens.from_numpy(drawn, *kind).to_images(tokenizer)
    flowmo.to_pil(torch.cat(list(images), dim=2))[0].save(arguments.out)
    print(f"{len(drawn)} samples in {arguments.out}")


if __name__ == "__main__":
    main()
