#!/usr/bin/env bash
# A few minutes on a CPU that touch every part: train a tiny model, stopped on the way and continued, and its encoder-only
# sibling; then code pictures with it, decode them again, and measure it.
#   runs/smoke_cpu.sh DATA [OUT]
# DATA: a folder of pictures or of Parquet files. The pictures of so small a model show that it runs, nothing more.
set -euo pipefail
data=$1 out=${2:-out/smoke}
python=${PYTHON:-python}
pictures=$(cd "$(dirname "$0")/../src/flowmo/samples" && pwd)
flowmo() { echo "+ flowmo $*"; "$python" -m flowmo "$@"; }

# Stage 1A in two halves: the second command is the first one again.
stage_1a() {
  flowmo train "$data" "$out/1a" --preset tiny --recipe none "$@" --set images=1200 batch_size=16 micro_batch=8 learning_rate=1e-3 \
    warmup_images=200 cooldown_images=400 validate_every=800 perceptual_share=0.25 perceptual_network=alex \
    noise_levels.curriculum_images=600
}
stage_1a --time-limit 5s
stage_1a
# The ablation with an encoder trained by regression (F5).
flowmo train "$data" "$out/regression" --preset tiny --stage autoencode --set images=320 batch_size=16 learning_rate=1e-3 \
  warmup_images=0 cooldown_images=0 validate_every=320 perceptual_share=0.25
flowmo train "$data" "$out/1a-frozen" --init "$out/regression" --freeze-encoder --set images=320 batch_size=16 \
  warmup_images=0 cooldown_images=0 validate_every=320 losses.perceptual=0
flowmo info "$out/1a"

flowmo reconstruct "$pictures" --model "$out/1a" --out "$out/pictures" --force
flowmo tokenize "$pictures" --model "$out/1a" --out "$out/tokens" --force
flowmo detokenize "$out/tokens" --model "$out/1a" --out "$out/again" --force

# Measured, beside a codec at equal bytes, and on one page.
flowmo evaluate "$out/1a" "$pictures" --metrics psnr ssim lpips_alex code --out "$out/results" --force
flowmo compare "$pictures" --models "$out/1a" --codecs webp --metrics --controls --out "$out/comparison" --force
flowmo gallery "$pictures" --models "$out/1a" --codecs webp --out "$out/gallery.html" --force
