#!/usr/bin/env bash
# A model for any rate and any size from photographs: runs/packaged.sh DATA OUT [TIME]
#
# DATA: images with the splits train and validation. OUT: gets start.safetensors, the best linear code, and the runs that go on
# from it. TIME: how long this call may train (default: 3h). Killed or stopped anywhere, the same command goes on.
#
#   1. flowmo fit-transform: a code without training, in minutes
#   2. crops of 128 pixels at t = 1: squared error and LPIPS on a part of each image, random rates, the encoder fixed
#   3. whole images of 256 pixels
#
# The lengths are those of two cores; docs/LOG.md tells what was tried.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
data=$1 out=$2 limit=${3:-3h}
flowmo() { echo "+ flowmo $*"; "${PYTHON:-python3}" -m flowmo "$@"; }
# On Linux, memory that is kept makes a step a fourth faster.
export MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=500000000
mkdir -p "$out"
[ -e "$out/start.safetensors" ] || flowmo fit-transform "$data" --out "$out/start.safetensors"
settings=(batch_size=16 gradient_clip=1.0 weight_normalization=false code_dropout=0
  noise_levels.curriculum_mass=1.0 noise_levels.curriculum_images=1000000000
  losses.perceptual=0.3 perceptual_share=0.5 perceptual_crop=64 rates.full_share=0.4 rates.often_share=0.25
  flip=true workers=1 precision=fp32 checkpoint_minutes=5 check_images=50000 log_steps=100 ${SET:-})
flowmo train "$data" "$out/crops" --recipe none --init "$out/start.safetensors" --validation "$data" --time-limit "$limit" \
  --set "${settings[@]}" images=1000000 learning_rate=5e-4 warmup_images=3000 cooldown_images=0 crop_size=128
