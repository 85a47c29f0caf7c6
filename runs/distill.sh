#!/usr/bin/env bash
# Few-step decoding: decoders distilled from a model, measured beside it with as many passes and with its own, and the table
# of docs/SPEED.md. About two hours on one CPU core, half an hour of it for each training. The same command again goes on.
#   runs/distill.sh MODEL DATA PHOTOGRAPHS OUT
# MODEL: the teacher, and where the students begin: weights whose own sampler takes several passes, as those of
# runs/stages_64.sh. DATA: Parquet files to train on; validation sees images of its validation part, after the first SKIP.
# PHOTOGRAPHS: a folder of Parquet files whose validation part is measured, all of it, or the first LIMIT. The result goes
# into results/decoding.json and docs/SPEED.md, or into RESULT alone. Nothing else should run while the table is made.
set -euo pipefail
model=${1%/model.safetensors} data=$2 photographs=$3 out=$4
python=${PYTHON:-python}
root=$(cd "$(dirname "$0")/.." && pwd)
flowmo() { echo "+ flowmo $*"; "$python" -m flowmo "$@"; }

targets=${TARGETS:-image teacher}    # what the students' samples are compared with, a training each
steps=${STEPS:-1,2}                  # numbers of steps that each student serves; the first is its own sampler
plain=${PLAIN:-1 2 4}                # steps of the teacher without guidance, for comparison
images=${IMAGES:-2400}               # of each training
limit=${TIME_LIMIT:-30m}             # of each training; it goes on when this is run again
count=${COUNT:-96} skip=${SKIP:-4000}
seeds=${SEEDS:-0 1000 2000}
repeats=${REPEATS:-5}                # rounds of the measurement of speed
result=${RESULT:-$root/results/decoding.json}
settings=(seed=0 images="$images" batch_size=8 micro_batch=8 learning_rate=2e-4 warmup_images=$((images / 20))
  cooldown_images=$((images / 3)) ema_horizon=0.06 gradient_clip=0.5 validate_every=$((images / 4)) workers=1
  sample.network=lpips_vgg sample.weight=1 sample.recompute=false ${SETTINGS:-})

# 1. The students. Validation keeps the best weights by rFID.
mkdir -p "$out"
students=()
for target in $targets; do
  flowmo distill "$data" "$out/$target" --init "$model" --validation "$data" --validation-skip "$skip" \
    --validation-count "$count" --time-limit "$limit" \
    --set "${settings[@]}" "distill.steps=[$steps]" distill.target="$target" | tee "$out/$target.txt"
  grep -q "^finished\|^stopped early" "$out/$target.txt" || { echo "$out/$target goes on when this is run again"; exit 1; }
  cp "$out/$target/best.safetensors" "$out/student-$target.safetensors"
  students+=("$out/student-$target.safetensors")
done

# 2. All photographs, by each sampler. measured LABEL MODEL NAME FLAGS...: a row of the table.
rows=()
measured() {
  local label=$1 weights=$2 name=$3 results=() stem; shift 3
  stem=$(basename "$weights" .safetensors)
  for seed in $seeds; do
    flowmo evaluate "$weights" "$photographs" --seed "$seed" --out "$out/$name/seed-$seed" ${LIMIT:+--count "$LIMIT"} "$@"
    results+=("$out/$name/seed-$seed/$stem-standard.json")
  done
  rows+=("$label=$weights=$(IFS=,; echo "${results[*]}")")
}
measured "teacher, its own sampler" "$model" teacher
for n in $plain; do measured "teacher, steps: $n, no guidance" "$model" "teacher-$n" --steps "$n" --guidance 1; done
for student in "${students[@]}"; do
  name=$(basename "$student" .safetensors)
  for n in ${steps//,/ }; do
    measured "**student, target ${name#student-}, steps: $n**" "$student" "$name-$n" --steps "$n"
  done
done

# 3. The table: quality from these, speed measured now.
"$python" "$root/tools/compare_decoding.py" "$result" "${rows[@]}" --repeats "$repeats"
[ -n "${RESULT:-}" ] || "$python" "$root/tools/render_readme.py"
