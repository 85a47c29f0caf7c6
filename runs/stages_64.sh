#!/usr/bin/env bash
# The paper's Stage 1A with tokens learned from noise, small: flowmo-mini-64, on two CPU cores in about two hours.
#   runs/stages_64.sh DATA OUT
# DATA: a folder of Parquet files with 64 x 64 pictures. The same command again goes on from the last checkpoint.
# runs/posttrain.sh and runs/distill.sh go on from its model. docs/LOG.md tells what was learned on the way.
set -euo pipefail
data=$1 out=$2
# glibc gives large blocks back to the system after every operation and faults them in again; keeping them is faster.
export MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=500000000
train() { python -m flowmo train "$data" "$@" batch_size=16 losses.commitment=0.01 perceptual_share=0.25 validate_every=8000; }

# 1. Every sample at t = 1, where the code is all there is: the decoder learns to read, the encoder to write.
train "$out/1-code" --recipe none --preset flowmo-mini-64 --validation "$data" --set seed=0 \
  images=37000 learning_rate=1e-3 warmup_images=2000 cooldown_images=0 \
  noise_levels.curriculum_mass=1.0 noise_levels.curriculum_images=37000

# 2. From the averaged weights of 1: the mixture of noise levels with code dropout, then the cool-down. A clean prediction at low noise gives rare
#    gradients of enormous size: they are clipped, and such levels are rare.
train "$out/2-flow" --init "$out/1-code" --validation "$data" --set seed=2 \
  images=46000 learning_rate=8e-4 warmup_images=800 cooldown_images=20000 ema_horizon=0.06 gradient_clip=0.5 \
  noise_levels.curriculum_mass=1.0 noise_levels.anneal_images=10000 \
  noise_levels.pure_noise_mass=0.3 noise_levels.uniform_mass=0.05 noise_levels.location=0.8 noise_levels.scale=0.8

# 3. The sampler that suits the model best, stored with the weights; chosen on other pictures than the numbers are of.
python -m flowmo figure sampler-grid "$data" --model "$out/2-flow" --skip 4000 --count 128 --steps 1 2 4 8 --rho 1 1.5 2 \
  --guidance 1 1.25 1.5 2 --interval 0.1 0.9 --within 0.5 --out "$out/sampler" --force \
  --store "$out/flowmo-mini-64.safetensors"
