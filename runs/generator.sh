#!/usr/bin/env bash
# Stage 2 from a data set to numbers: runs/generator.sh DATA OUT. Every step is passed over where it is done and goes on
# where it was stopped, so the same command again continues; LIMIT bounds the training of one call (90m, 8m, 2h).
# DATA: a folder of Parquet files with labels, in parts "train" and "validation", such as 100 classes at 64 x 64 pixels.
# OUT: shards, the run, samples and results. docs/GENERATION.md explains the steps.
set -euo pipefail
data=$1 out=$2
python=${PYTHON:-python} device=${DEVICE:-cpu} tokenizer=${TOKENIZER:-flowmo-mini-64} preset=${PRESET:-maskgit-mini}
limit=${LIMIT:-90m} images=${IMAGES:-900000} cooldown=${COOLDOWN:-180000} each=${EACH:-10} classes=${CLASSES:-}
flowmo() { echo "+ flowmo $*" >&2; "$python" -m flowmo "$@"; }
names=()
[ -z "$classes" ] || names=(--class-names "$classes")

# 1. Tokens of both parts.
for part in train validation; do
  [ -f "$out/$part.shard" ] ||
    flowmo tokenize "$data" --split $part --model "$tokenizer" "${names[@]}" --out "$out/$part.shard" --batch-size 64 --device "$device"
done

# 2. The generator.
flowmo train-generator "$out/train.shard" "$out/run" --preset "$preset" --validation "$out/validation.shard" \
  --tokenizer "$tokenizer" --time-limit "$limit" --device "$device" --set images="$images" cooldown_images="$cooldown" \
  batch_size=64 learning_rate=1e-3 warmup_images=10000 check_images=45000 gradient_clip=1.0
if ! grep -q "\"images\": $images, \"validation\"" "$out/run/log.jsonl"; then
  echo "not trained to the end yet; the same command goes on"
  exit 0
fi

# 3. Samples: by guidance in the generator and in the decoder, by temperature, and a grid to look at.
generate() { flowmo generate --generator "$out/run" --tokenizer "$tokenizer" --device "$device" --batch-size 50 "$@"; }
samples() { [ -f "$out/samples/$1.npz" ] || generate -n "$each" --npz "$out/samples/$1.npz" --no-pictures "${@:2}"; }
for guidance in 1 2 4; do
  for decoder in 1 1.5; do
    samples "guidance-$guidance-decoder-$decoder" --guidance $guidance --decoder-guidance $decoder
  done
done
for temperature in 0.7 1 1.3; do
  samples "temperature-$temperature" --temperature $temperature --guidance 2
done
[ -f "$out/pictures/grid.png" ] || generate -n 8 --guidance 2 --out "$out/pictures" --show-steps 8

# 4. Numbers against the validation part; the floor is what the tokenizer makes of real pictures.
"$python" tools/generator_controls.py "$data" "$out" --tokenizer "$tokenizer" --each "$each" --device "$device"
flowmo evaluate-generator "$out"/samples/*.npz "$data" --split validation --out "$out/results" --device "$device" --force
