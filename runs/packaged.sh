#!/usr/bin/env bash
# A model for any rate and any size from photographs: runs/packaged.sh DATA OUT [TIME]
#
# DATA: images with the splits train and validation. OUT: gets the runs, each from the one before, and the packaged file.
# TIME: how long this call may train (default: 3h). Killed or stopped anywhere, the same command goes on.
#
#   start.safetensors  flowmo fit-transform: a code without training, in minutes (START names one that is there already)
#   1-crops            crops of CROP pixels at t = 1: squared error, random rates, the encoder fixed
#   2-lpips            the same with LPIPS on a part of each image
#   3-whole            whole images, with the cool-down at the end
#   4-seeking          Stage 1B in one-step chains (LAST=posttrain), one-step distillation to the image (LAST=distill), or
#                      nothing (LAST=none)
#   results, package   the rate curve on the validation images; the weights in half precision
#
# The lengths, in images, are those of two cores: CROPS LPIPS WHOLE COOL SEEKING. PRESET and SET (settings of training)
# change the rest. PROCESSES=2 trains in as many processes, each of one thread,
# which on two cores that others use too is a third faster than one process of two threads. COMPILE=true makes a step
# about 1.14 times as fast on a CPU, after some minutes, where there is a C++ compiler. The other numbers are those of the
# trials in docs/LOG.md.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
data=$1 out=$2 limit=${3:-3h}
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$root/src${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-python3} device=${DEVICE:-cpu} preset=${PRESET:-flowmo-mini} last=${LAST:-distill}
flowmo() { echo "+ flowmo $*"; "$python" -m flowmo "$@"; }
# On Linux, memory that is kept spares the kernel some work; how much differs by machine.
export MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=500000000
export THP_MEM_ALLOC_ENABLE=1 # and in large pages
case $limit in *h) limit=$((${limit%h} * 3600)) ;; *m) limit=$((${limit%m} * 60)) ;; *) limit=${limit%s} ;; esac
left() { echo "$((limit > SECONDS ? limit - SECONDS : 0))s"; }
mkdir -p "$out"
start=${START:-$out/start.safetensors}
[ -e "$start" ] || flowmo fit-transform "$data" --out "$start" --preset "$preset" ${MODEL:+--set $MODEL}

rates=(rates.full_share=0.4 rates.often_share=0.25)
common=(batch_size="${BATCH:-8}" gradient_clip=1.0 weight_normalization=false code_dropout=0 "${rates[@]}"
  noise_levels.curriculum_mass=1.0 noise_levels.curriculum_images=1000000000 ema_decay=0.999
  compile="${COMPILE:-false}" flip=true workers="${WORKERS:-1}" checkpoint_minutes=5 validate_every=50000 log_steps=100)
stages=(optimizer="${OPTIMIZER:-adam}" learning_rate="${RATE:-4e-4}" "betas=[0.9,0.98]" learning_rates.linear=0.1
  learning_rates.readout=0.1 losses.flow="${FLOW:-1}" perceptual_share="${SHARE:-1}" perceptual_crop="${PART:-96}"
  "perceptual_scales=[0.667,1.0,1.333]")

run() { # NAME IMAGES COMMAND FLAGS...: a run to its end, or to the end of this call
  local folder=$out/$1 images=$2 command=$3
  local end=$folder/checkpoint-$(printf %010d "$images") processes=()
  [ ! -e "$end" ] || [ ! -e "$folder/model.safetensors" ] || return 0
  [ "${PROCESSES:-1}" = 1 ] || processes=(-m torch.distributed.run --nproc-per-node "$PROCESSES")
  echo "+ flowmo $command $data $folder"
  "$python" ${processes[@]+"${processes[@]}"} -m flowmo "$command" "$data" "$folder" --validation "$data" \
    --time-limit "$(left)" --device "$device" "${@:4}" images="$images"
  [ -e "$end" ] || { echo "stopped at the end of this call; the same command goes on" && exit 0; }
}
train() { # NAME IMAGES FROM SETTINGS...
  run "$1" "$2" train --recipe none --init "$3" --set "${common[@]}" "${stages[@]}" "${@:4}" ${SET:-}
}
crop=${CROP:-128} perceptual=${PERCEPTUAL:-1}
train 1-crops "${CROPS:-10000}" "$start" crop_size="$crop" warmup_images=3000 cooldown_images=0 losses.perceptual=0
train 2-lpips "${LPIPS:-500000}" "$out/1-crops" crop_size="$crop" warmup_images=3000 cooldown_images=0 losses.perceptual="$perceptual"
train 3-whole "${WHOLE:-150000}" "$out/2-lpips" warmup_images=3000 cooldown_images="${COOL:-75000}" losses.perceptual="$perceptual"
model=$out/3-whole

seeking=(micro_batch="$((${BATCH:-8} / ${PROCESSES:-1}))" learning_rate=1e-4 learning_rates.linear=0.05 warmup_images=1000 cooldown_images="$((${SEEKING:-50000} / 2))"
  sample.weight="${WEIGHT:-0.1}")
case $last in
  posttrain) seeking+=(sample.num_steps=1 sample.grid=shifted) ;;
  distill) seeking+=(distill.target=image sample.network="${NETWORK:-lpips_vgg}") ;;
esac
if [ "$last" != none ]; then
  run 4-seeking "${SEEKING:-50000}" "$last" --init "$model" --validation-count "${VALIDATE:-64}" --no-rfid \
    --set $(printf '%s\n' "${common[@]}" | { [ "$last" = distill ] && grep -v noise_levels || cat; }) "${seeking[@]}" ${SET:-}
  model=$out/4-seeking
fi

flowmo evaluate "$model" "$data" --split validation --out "$out/results" --device "$device" \
  --bits-per-token ${RATES:-9 12 18 24 32 40 48 56} --metrics ${METRICS:-psnr ssim lpips_alex rfid kid} ${COUNT:+--count "$COUNT"}
"$python" "$root/tools/package_model.py" "$model" "$out/package" --name "$preset" --start "$start" --results "$out/results"
