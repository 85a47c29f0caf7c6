#!/usr/bin/env bash
# Stage 1B, and what it is worth (Table 5): a model before; after 1B; and after the same extra images of plain Stage 1A
# with the encoder frozen. About two hours on one CPU core for a model of 64 pixels. The same command again goes on.
#   MODEL=WEIGHTS runs/posttrain.sh DATA PHOTOGRAPHS OUT [IMAGES] [TIME_LIMIT]
# MODEL: where it begins, such as that of runs/stages_64.sh. DATA: Parquet files to train on; checks see images of its validation part, after the first 4,000. PHOTOGRAPHS: a folder of
# Parquet files whose validation part is measured, all of it. IMAGES, TIME_LIMIT: of each of the two trainings. The result
# goes into results/posttraining.json and docs/TRAINING.md, whose table begins at the weights of 64 pixels that commit
# 6a494d2 had in the package.
set -euo pipefail
data=$1 photographs=$2 out=$3 images=${4:-2400} limit=${5:-40m}
python=${PYTHON:-python}
model=${MODEL:?name the weights where it begins: MODEL=OUT/flowmo-mini-64.safetensors}
root=$(cd "$(dirname "$0")/.." && pwd)
flowmo() { echo "+ flowmo $*"; "$python" -m flowmo "$@"; }
# A training to its end; within the time limit it may take this script several times.
trained() { mkdir -p "$out"; flowmo "${@:2}" | tee "$out/$1.txt"; grep -q "^finished\|^stopped early" "$out/$1.txt" || {
  echo "$out/$1 goes on when this is run again"; exit 1; }; }

# What both trainings share: the noise levels of runs/stages_64.sh, small steps, a cool-down.
common=(seed=0 images="$images" batch_size=8 micro_batch=8 learning_rate=2e-4 warmup_images=160
  cooldown_images=$((images / 3)) ema_horizon=0.06 gradient_clip=0.5 validate_every=$((images / 3)) workers=1
  noise_levels.pure_noise_mass=0.3 noise_levels.uniform_mass=0.05 noise_levels.location=0.8 noise_levels.scale=0.8)

# 1. Stage 1B. LPIPS and chains of two steps, as that model's own sampler takes, did better here than a classifier's
#    logits (docs/LOG.md), and no recomputation, to afford it on a CPU. SAMPLE changes it.
trained 1b posttrain "$data" "$out/1b" --init "$model" --validation "$data" --validation-skip 4000 --validation-count 96 \
  --time-limit "$limit" --set "${common[@]}" sample.network=lpips_vgg \
  sample.weight=0.1 sample.num_steps=2 sample.recompute=false ${SAMPLE:-}

# 2. The same images of Stage 1A, with its one-step LPIPS, from the same weights.
trained 1a train "$data" "$out/1a" --init "$model" --freeze-encoder --validation "$data" --time-limit "$limit" \
  --set "${common[@]}" perceptual_share=0.25

# 3. All photographs, three seeds of noise, everything that can be measured.
cp "$out/1b/best.safetensors" "$out/posttrained.safetensors"
cp "$out/1a/model.safetensors" "$out/more-1a.safetensors"
for seed in 0 1000 2000; do
  flowmo evaluate "$model" "$out/posttrained.safetensors" "$out/more-1a.safetensors" "$photographs" \
    --seed "$seed" --out "$out/seed-$seed"
done
results() { echo "$out/seed-0/$1-standard.json,$out/seed-1000/$1-standard.json,$out/seed-2000/$1-standard.json"; }
"$python" "$root/tools/compare_posttraining.py" "$root/results/posttraining.json" \
  before="$(results "$model")" 1b="$(results posttrained)" 1a="$(results more-1a)"
"$python" "$root/tools/render_readme.py"
