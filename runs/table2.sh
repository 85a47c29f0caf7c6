#!/usr/bin/env bash
# Table 2: a generator over each tokenizer, trained and measured: runs/table2.sh DATA OUT TOKENIZER [TOKENIZER ...]
#
#   runs/table2.sh imagenet/ out/table2 open-magvit2=imagenet_256_L.ckpt flowmo_lo.pth
#
# DATA: labelled images in parts "train" and "validation". TOKENIZER: a model of ours, or NAME=FILE of another with a name
# of `flowmo compare --peers list`. The defaults are the paper's: 397 M parameters, 300 epochs, integers of 9 bits, 64
# steps, guidance 1.5, 50 samples of each class against the training part. LAUNCH="torchrun --nproc-per-node 8 -m" spreads
# all but the measuring over GPUs. Every step is passed over where it is done and goes on where it was stopped.
# SIZE: pixels a side of the others. SET: settings of the training in place of the recipe. LIMIT: time of one call (2h).
# MEASURE=0: end with the samples.
set -euo pipefail
data=$1 out=$2
shift 2
python=${PYTHON:-python} launch=${LAUNCH:-${PYTHON:-python} -m} device=${DEVICE:-cuda} size=${SIZE:-256} bits=${BITS:-9}
preset=${PRESET:-maskgit-397m} each=${EACH:-50} steps=${STEPS:-64} guidance=${GUIDANCE:-1.5} split=${SPLIT:-train}
flowmo() { echo "+ flowmo $*" >&2; $launch flowmo "$@"; }

samples=()
for tokenizer in "$@"; do
  if [[ $tokenizer == *=* ]]; then
    name=${tokenizer%%=*} coder=(--peer "$tokenizer" --peer-size "$size") decoder=(--peer "$tokenizer")
  else
    name=$(basename "$tokenizer") coder=(--model "$tokenizer") decoder=(--tokenizer "$tokenizer")
    name=${name%.*}
  fi
  folder=$out/$name
  [ -f "$folder/train.shard" ] || flowmo tokenize "$data" --split train "${coder[@]}" --out "$folder/train.shard" \
    --device "$device"
  if [ ! -f "$folder/trained" ]; then
    # shellcheck disable=SC2086 # SET is several words
    flowmo train-generator "$folder/train.shard" "$folder/run" --preset "$preset" --config bits_per_group="$bits" \
      ${LIMIT:+--time-limit "$LIMIT"} --device "$device" $([ -n "${SET:-}" ] && echo "--set $SET" || echo "--recipe published") \
      | tee "$folder/training.txt"
    tail -n 1 "$folder/training.txt" | grep -q ^finished || { echo "not trained to the end; the same command goes on"; exit 0; }
    touch "$folder/trained"
  fi
  [ -f "$out/samples/$name.npz" ] || flowmo generate --generator "$folder/run" "${decoder[@]}" --count "$each" \
    --mask-steps "$steps" --guidance "$guidance" --npz "$out/samples/$name.npz" --no-pictures --device "$device"
  [ -f "$out/results/$name.json" ] || samples+=("$out/samples/$name.npz")
done
[ ${#samples[@]} = 0 ] || [ "${MEASURE:-1}" = 0 ] || "$python" -m flowmo evaluate-generator "${samples[@]}" "$data" \
  --split "$split" --out "$out/results" --device "$device"
