#!/usr/bin/env bash
# About two minutes on a CPU that touch every part: train a tiny model, then code pictures with it and paint them again.
#   runs/smoke_cpu.sh DATA [OUT]
# DATA: a folder of pictures or of Parquet files. The pictures of so small a model show that it runs, nothing more.
set -euo pipefail
data=$1 out=${2:-out/smoke}
pictures=$(dirname "$0")/../src/flowmo/samples
python -m flowmo train "$data" "$out/run" --preset tiny --set images=4000 batch_size=16 learning_rate=1e-3 \
  warmup_images=400 cooldown_images=1000 check_images=2000 perceptual_share=0.25 noise_levels.curriculum_images=2000
python -m flowmo info "$out/run"
python -m flowmo reconstruct "$pictures" --model "$out/run" --out "$out/pictures" --force
python -m flowmo tokenize "$pictures" --model "$out/run" --out "$out/tokens" --force
python -m flowmo detokenize "$out/tokens" --model "$out/run" --out "$out/again" --force
