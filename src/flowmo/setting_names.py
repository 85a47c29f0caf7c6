"""Names of settings: those that other programs use, those that ours had before, and the nearest to one that is none."""

from __future__ import annotations

import difflib

RENAMED = {"check_images": "validate_every"}
"""Names that settings had before, in stored configurations and on command lines; they keep working."""
_MEANT = {
    "validate_every": "eval_steps eval_interval eval_every val_check_interval",
    "learning_rate": "lr base_lr max_lr step_size",
    "batch_size": "bs batch batchsize global_batch_size train_batch_size",
    "micro_batch": "grad_accum accumulation gradient_accumulation gradient_accumulation_steps micro_batch_size",
    "gradient_clip": "clip grad_clip max_grad_norm clip_grad_norm",
    "warmup_images": "warmup warmup_steps",
    "cooldown_images": "cooldown decay_images decay_steps",
    "images": "epochs max_steps steps iterations num_images total_images max_images",
    "ema_horizon": "ema ema_rate",
    "precision": "dtype amp bf16 fp16 mixed_precision autocast",
    "recompute_blocks": "checkpointing gradient_checkpointing activation_checkpointing recompute",
    "workers": "num_workers dataloader_workers",
    "perceptual": "lpips lpips_weight perceptual_weight",
    "crop_size": "resolution image_size img_size size",
    "image_size": "resolution img_size size",
    "width": "dim hidden_size hidden_dim embed_dim d_model model_dim",
    "depth": "layers num_layers n_layers blocks",
    "heads": "num_heads n_heads attention_heads",
}
SYNONYMS = {
    other: [own for own in _MEANT if other in _MEANT[own].split()] for all in _MEANT.values() for other in all.split()
}
"""Other programs' names of our settings, for a suggestion."""


def unknown_setting(name: str, known: list[str]) -> str:
    """Return what is wrong with a name that is no setting, and the nearest of those that are."""
    meant = SYNONYMS.get(name.rpartition(".")[2].lower(), ())
    near = [path for leaf in meant for path in known if path.rpartition(".")[2] == leaf]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"unknown setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
