#!/usr/bin/env bash
# What only a GPU can tell, in one call of at most ten minutes: is it right there, how fast is it, does the memory fit
# the estimate; and for the time that is left a training of the 256-pixel model.
#   runs/gpu_day.sh [OUT]
# OUT (results/gpu) gets a JSON a part and table.md. A part whose file is there is not measured again, so the same call
# goes on after a kill; a part that fails is named and the others go on. No network is needed.
#   DEVICE=cuda   or cpu, for a rehearsal      SIZE=full     or tiny, for a rehearsal
#   MINUTES=9.5   of this call, at most        DATA=...      to load and train on (the sample photographs)
#   PYTHON=python  REST=...  seconds of the training, where not all that is left;  FLOWMO_SHARED  with golden/, if anywhere
set -uo pipefail
begun=$SECONDS
here=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$here/results/gpu}
device=${DEVICE:-cuda} size=${SIZE:-full} python=${PYTHON:-python}
data=${DATA:-$here/src/flowmo/samples}
limit=$("$python" -c "print(int(60 * ${MINUTES:-9.5}))")
export PYTHONPATH="$here/src${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
mkdir -p "$out"
failed=()

left() { echo $((limit - SECONDS + begun)); }

# part NAME SECONDS COMMAND...: writes OUT/NAME.json, within so many seconds.
part() {
  local name=$1 most=$(($2 * patience)) code=0
  shift 2
  [ ! -e "$out/$name.json" ] || { echo "= $name: measured before"; return; }
  [ "$(left)" -gt 10 ] || { echo "= $name: no time left"; failed+=("$name"); return; }
  [ "$most" -le "$(left)" ] || most=$(left)
  echo "= $name, at most $most s: $*"
  timeout "$most" "$@" >"$out/$name.log" 2>&1 || code=$?
  tail -n 40 "$out/$name.log"
  [ -e "$out/$name.json" ] && [ "$code" = 0 ] || { echo "= $name: exit code $code, see $out/$name.log"; failed+=("$name"); }
}

bench() { # NAME SECONDS WHAT ...
  local name=$1 most=$2 what=$3
  shift 3
  part "$name" "$most" "$python" -m flowmo bench "$what" "$@" --device "$device" --out "$out/$name.json"
}

if [ "$size" = tiny ]; then
  patience=5 least=3 # a rehearsal may share its processor
  large=tiny small=tiny trained=tiny workers=1 micro=(2) compile=off flags=(--steps 1 --batch-size 2 --repeats 1)
  check=(--model tiny --batch-size 2 --repeats 1 --shape tiny --backend eager) settings=(batch_size=4 micro_batch=2 perceptual_network=alex)
else
  patience=1 least=20
  large=flowmo-lo small=flowmo-fewer-params trained=flowmo-mini-hi workers=$(nproc) micro=(8 16) compile=both
  flags=(--steps 2 --batch-size 16 --repeats 2 --dtype bf16) check=(--batch-size 8 --shape flowmo-lo) settings=()
fi

# Is it right? The released model's numbers, where they are at hand; then every way to run the packaged model.
if [ -e "${FLOWMO_SHARED:-$here/../shared}/golden/official_tiny_lo.npz" ] && "$python" -c "import pytest" 2>/dev/null; then
  FLOWMO_TEST_DEVICE=$device part golden 60 bash -c "cd '$here' && '$python' -m pytest -q -p no:cacheprovider \
    tests/golden/test_official_vectors.py --junitxml='$out/golden.xml' && echo '{\"what\": \"golden\", \"passed\": true}' >'$out/golden.json'"
fi
bench device 150 device "${check[@]}"
# How fast, and does the estimate hold? Decoder passes and training steps, eager, compiled and with CUDA graphs.
bench "train-$small" 100 train "$data" --preset "$small" --recipe published --micro-batch "${micro[@]}" --compile "$compile" \
  --repeats 3 --set workers="$workers" "${settings[@]}"
bench "decode-$large" 100 decode --model "$large" "${flags[@]}"
if [ "$large" != "$small" ]; then
  bench "train-$large" 120 train "$data" --preset "$large" --recipe published --micro-batch 8 --compile both --repeats 3 \
    --set workers="$workers"
  bench "decode-$small" 60 decode --model "$small" "${flags[@]}"
fi
# What is left belongs to a training, which goes on when it is called again.
rest=${REST:-$(($(left) - 15))}
if [ "$rest" -gt "$least" ]; then
  "$python" -c "from flowmo.perceptual import load_lpips; load_lpips('vgg')" 2>/dev/null || settings+=(losses.perceptual=0)
  echo "= training for $rest s"
  timeout "$(left)" "$python" -m flowmo train "$data" "$out/run" --preset "$trained" --recipe short --device "$device" \
    --time-limit "${rest}s" --set workers="$workers" ${settings[@]+"${settings[@]}"} >"$out/run.log" 2>&1 || failed+=(run)
  tail -n 5 "$out/run.log"
fi
"$python" "$here/tools/gpu_table.py" "$out" >"$out/table.md" && cat "$out/table.md"
[ ${#failed[@]} = 0 ] || { echo "not well: ${failed[*]}"; exit 1; }
