#!/usr/bin/env bash
# The packaged flowmo-mini-64, on two CPU cores: runs/packaged_64.sh DATA OUT [TIME]
# DATA: the folder of 64 x 64 Parquet files. The same command again goes on from the last checkpoint.
set -euo pipefail
data=$1 out=$2 time=${3:-3h}
# glibc gives large blocks back to the system after every operation and faults them in again; keeping them is faster.
export MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=500000000
# First every sample at t = 1, where the code is all there is; then the mixture of noise levels; then the cool-down.
python -m flowmo train "$data" "$out" --preset flowmo-mini-64 --validation "$data" --time-limit "$time" --set \
  images=104000 batch_size=16 learning_rate=1e-3 warmup_images=2000 cooldown_images=28000 \
  perceptual_share=0.25 code_dropout=0.1 check_images=8000 log_steps=50 checkpoint_minutes=5 \
  noise_levels.curriculum_mass=1.0 noise_levels.curriculum_images=40000 noise_levels.anneal_images=16000 \
  noise_levels.pure_noise_mass=0.2 noise_levels.uniform_mass=0.2 noise_levels.location=0.8 noise_levels.scale=0.8
