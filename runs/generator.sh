#!/usr/bin/env bash
# Stage 2 from a data set to numbers: runs/generator.sh DATA OUT. Every step is passed over where it is done and goes on
# where it was stopped, so the same command again continues; LIMIT bounds the training of one call (8m, 90m, 2h).
# DATA: labelled pictures in parts "train" and "validation", such as Parquet files of 100 classes at 64 x 64 pixels.
# GUIDANCES: of the generator. DECODERS: of the decoder, for each of those; DECODER: the tokenizer whose decoder these
# guide, one of several steps with the tokens of TOKENIZER (a decoder of one step has no level where guidance acts).
# COUNT: of each part only the first pictures. EACH: samples a class. INIT: a generator to start from. FLIP=1: train on
# the mirrored pictures as well. BITS: of the integers of the sequence, where the tokenizer's are other (bits_per_group).
# Without TOKENIZER it is the packaged one, and pictures of 64 pixels are coded enlarged (SIZE: 128), by 64 tokens of 27
# bits (RATE); samples are made as small again before they are measured (PICTURES: 64). The generator stores how it is
# best sampled; STEPS and NOISE change it.
# OUT: shards, the run, samples, pictures and results. docs/GENERATION.md explains the steps.
set -euo pipefail
data=$1 out=$2
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python} device=${DEVICE:-cpu}
config=(${BITS:+bits_per_group="$BITS"})
if [ -z "${TOKENIZER:-}" ]; then
  SIZE=${SIZE-128} RATE=${RATE-27} PICTURES=${PICTURES-64}
  config+=(decoding.num_steps=32 decoding.guidance_scale=5 decoding.order=coarse)
fi
[ -z "${INIT:-}" ] || config=() # they are those of the generator that it begins with
tokenizer=${TOKENIZER:-flowmo-mini} size=${SIZE:-} rate=${RATE:-} pictures=${PICTURES:-}
preset=${PRESET:-maskgit-mini} limit=${LIMIT:-90m} images=${IMAGES:-300000} cooldown=${COOLDOWN:-75000} batch=${BATCH:-32}
other=${DECODER:-$tokenizer} first=${COUNT:-} each=${EACH:-10} steps=${STEPS:-} noise=${NOISE:-} classes=${CLASSES:-}
guidances=${GUIDANCES-1 3 5} decoders=${DECODERS-} temperatures=${TEMPERATURES-0.7 1.3} guidance=${GUIDANCE:-5}
flowmo() { echo "+ flowmo $*" >&2; "$python" -m flowmo "$@"; }

# 1. Tokens of both parts. CLASSES: a file of class names with their WordNet ids, where the data have none.
shard() {
  [ -f "$out/$2.shard" ] || flowmo tokenize "$data" --split "$1" --model "$tokenizer" --out "$out/$2.shard" \
    ${first:+--count "$first"} ${classes:+--class-names "$classes"} ${size:+--size "$size"} \
    ${rate:+--bits-per-token "$rate"} --batch-size 64 --device "$device" "${@:3}"
}
shard train train
shard validation validation
[ -z "${FLIP:-}" ] || shard train train-flipped --flip

# 2. The generator.
finished() { [ -f "$out/training.txt" ] && tail -n 1 "$out/training.txt" | grep -q ^finished; }
finished || flowmo train-generator "$out/train*.shard" "$out/run" --preset "$preset" --validation "$out/validation.shard" \
  --tokenizer "$tokenizer" ${INIT:+--init "$INIT"} ${config:+--config "${config[@]}"} --time-limit "$limit" --device "$device" --set images="$images" \
  cooldown_images="$cooldown" batch_size="$batch" learning_rate=1e-3 warmup_images=6000 validate_every=30000 \
  gradient_clip=1.0 | tee "$out/training.txt"
finished || { echo "not trained to the end; the same command goes on"; exit 0; }

# 3. Samples: guidance in the generator, in the decoder and in both; temperatures, at GUIDANCE; and a grid to look at.
generate() { flowmo generate --generator "$out/run" --device "$device" ${steps:+--mask-steps "$steps"} \
  ${noise:+--choice-noise "$noise"} ${pictures:+--size "$pictures"} --batch-size 50 "$@"; }
samples() { [ -f "$out/samples/$1.npz" ] || generate -n "$each" --npz "$out/samples/$1.npz" --no-pictures "${@:2}"; }
for strength in $guidances; do
  samples "guidance-$strength" --tokenizer "$tokenizer" --guidance "$strength"
  for decoder in $decoders; do
    samples "guidance-$strength-decoder-$decoder" --tokenizer "$other" --guidance "$strength" --decoder-guidance "$decoder"
  done
done
samples "guidance-$guidance" --tokenizer "$tokenizer" --guidance "$guidance"
for temperature in $temperatures; do
  samples "guidance-$guidance-temperature-$temperature" --tokenizer "$tokenizer" --guidance "$guidance" --temperature "$temperature"
done
[ -f "$out/pictures/grid.png" ] ||
  generate -n "$each" --tokenizer "$tokenizer" --guidance "$guidance" --out "$out/pictures" --show-steps 8

# 4. Numbers against the validation part, beside those of the controls.
"$python" "$root/tools/generator_controls.py" "$out" --tokenizer "$tokenizer" --each "$each" --samples "guidance-$guidance" \
  ${pictures:+--size "$pictures"} --device "$device"
unmeasured=()
for file in "$out"/samples/*.npz; do
  [ -f "$out/results/$(basename "$file" .npz).json" ] || unmeasured+=("$file")
done
[ ${#unmeasured[@]} = 0 ] || flowmo evaluate-generator "${unmeasured[@]}" "$data" --split validation \
  ${first:+--count "$first"} --out "$out/results" --device "$device"
