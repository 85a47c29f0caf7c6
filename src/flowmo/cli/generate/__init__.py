"""``flowmo generate``: pictures of classes, from a generator and the tokenizer that it was trained with (Stage 2). Each
picture has a seed of its own and is the same whatever the batch. --compare A B samples the same classes by two
generators side by side, each with its own tokenizer."""

from .command import add_arguments, run

__all__ = ["add_arguments", "run"]
