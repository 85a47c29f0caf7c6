#!/usr/bin/env bash
# A model of 256 x 256 pixels from pictures to weights: runs/release_256.sh DATA OUT --time-limit 22m [...]
#
#   --time-limit TIME   for trials and training together; fixes the length of the training once (default: 22m)
#   --call TIME         stop with a checkpoint after this long; the same command goes on (default: no limit)
#   --preset NAME       flowmo-mini-hi (default) or flowmo-mini-lo
#   --init WEIGHTS      go on from the raw weights of an earlier release, a folder that this script has written
#   --rehearsal         the same in small, to try it out on any machine
#
# DATA: a folder of pictures that flowmo train takes, with a split "validation"; tools/pack_images.py makes small files of it. Weights of LPIPS
# may lie there as lpips_vgg.safetensors. Files that arrive in DATA between two calls are used from the next call on.
# Needs torch (2.11 or newer), numpy, Pillow and safetensors, no installation. Killed anywhere, the same command goes on.
#
# OUT/home: averaged weights, metrics, contact sheet, log. OUT/raw: raw weights from before the cool-down; after a call that ends
# in the middle of training those of that moment. docs/RELEASE.md tells how to use it on a rented machine.
set -euo pipefail
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
[ $# -ge 2 ] || usage
data=$1 out=$2
shift 2
limit=22m call=1000h preset=flowmo-mini-hi init=() rehearsal=
while [ $# -gt 0 ]; do
  case $1 in
    --time-limit) limit=$2 && shift 2 ;;
    --call) call=$2 && shift 2 ;;
    --preset) preset=$2 && shift 2 ;;
    --init) init=(--init "$2") && shift 2 ;;
    --rehearsal) rehearsal=yes && shift ;;
    *) usage ;;
  esac
done
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
export PYTHONPATH=$root/src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
flowmo() { echo "+ flowmo $*"; "$python" -m flowmo "$@"; }
tool() { echo "+ $*"; "$python" "$root/tools/$1.py" "${@:2}"; }
planned() { "$python" -c 'import json, sys; print(str(json.load(open(sys.argv[1]))[sys.argv[2]]).lower())' "$out/plan.json" "$1"; }

seconds() { # 9m -> 540
  case $1 in *h) echo $((${1%h} * 3600)) ;; *m) echo $((${1%m} * 60)) ;; *) echo "${1%s}" ;; esac
}
call=$(seconds "$call")
stop() { echo "stopped at the end of this call; the same command goes on" && exit 0; }
left() { echo "$((call > SECONDS ? call - SECONDS : 0))s"; } # of this call

# What all runs share. The first three are of docs/LOG.md: a firm commitment, rare low levels, clipped gradients.
size=256 small=192 trial=60
settings=(losses.commitment=0.01 gradient_clip=0.5 noise_levels.curriculum_mass=1.0
  noise_levels.pure_noise_mass=0.3 noise_levels.uniform_mass=0.05 noise_levels.location=0.8 noise_levels.scale=0.8
  batch_size=128 perceptual_share=0.25 flip=true workers=12 log_steps=50 checkpoint_minutes=2)
if [ $rehearsal ]; then
  size=32 small=24 trial=0.5 preset=tiny
  settings+=(batch_size=8 workers=1 log_steps=2 checkpoint_minutes=0.02)
fi

# 0. The pictures, decoded once; again where files have arrived since.
files=$(find "$data" -type f -printf '%P %s\n' | sort)
if [ "$files" != "$(cat "$out/data/files" 2>/dev/null)" ]; then
  tool decode_images "$data" "$out/data" --size $size
  [ -e "$out/data/validation.npy" ] || { echo "$data has no split validation; put held-out pictures there" >&2 && exit 2; }
  echo "$files" >"$out/data/files"
fi
lpips=()
[ ! -e "$data/lpips_vgg.safetensors" ] || lpips=(--lpips "$data/lpips_vgg.safetensors")

# 1. Speed, trials and the length of the training, kept in OUT/plan.json.
if ! planned flow_images >/dev/null 2>&1; then
  code=0
  tool plan_release "$out/data" "$out" --preset $preset --small $small --seconds $trial --time-limit "$limit" \
    --stop-after "$(left)" "${lpips[@]}" "${init[@]}" --set "${settings[@]}" || code=$?
  [ $code != 3 ] || stop
  [ $code = 0 ] || exit $code
fi
common=("${settings[@]}" learning_rate="$(planned learning_rate)" compile="$(planned compile)")

train() { # FOLDER IMAGES ARGUMENTS...: a run to its end, or to the end of this call
  local folder=$1 images=$2
  local last=$folder/checkpoint-$(printf %010d "$images")
  [ ! -e "$last" ] || [ ! -e "$folder/model.safetensors" ] || return 0
  flowmo train "$out/data/train.npy" "$folder" --recipe none --validation "$out/data/validation.npy" --time-limit "$(left)" "${lpips[@]}" \
    "${@:3}" images="$images" check_images=$((images / 4))
  [ ! -e "$last" ] || return 0
  tool export_weights "$folder" "$out/raw" --checkpoint --add "$out/plan.json" "$folder/log.jsonl"
  stop
}

# 2a. Smaller pictures, every sample at t = 1, where the code is all there is: the encoder learns to write, the decoder to read.
images=$(planned code_images)
if [ "$images" != 0 ]; then
  train "$out/1-code" "$images" --preset $preset --model prediction="$(planned prediction)" sampler.num_steps=8 sampler.rho=1 \
    sampler.guidance_scale=1 --set "${common[@]}" crop_size=$small seed=1 \
    warmup_images=$((images / 20)) cooldown_images=0 noise_levels.curriculum_images="$images"
  init=(--init "$out/1-code")
fi

# 2b. Whole pictures, from the averaged weights: the share of t = 1 falls, code dropout sets in, then the cool-down.
images=$(planned flow_images)
train "$out/2-flow" "$images" "${init[@]}" --set "${common[@]}" seed=2 ema_horizon=0.06 \
  warmup_images=$((images / 50)) cooldown_images=$((images * 45 / 100)) noise_levels.anneal_images=$((images / 5))

# 3. What is kept: weights, metrics of the pictures in the validation split, a contact sheet of eight of them.
flowmo evaluate "$out/2-flow" "$out/data/validation.npy" --out "$out/metrics" --metrics psnr ssim lpips_vgg "${lpips[@]/#--lpips/--lpips-vgg}"
cp "$out/2-flow/pictures/$(printf %010d "$images").png" "$out/contact-sheet.png"
tool export_weights "$out/2-flow/raw_before_cooldown.safetensors" "$out/raw" --add "$out/plan.json"
tool export_weights "$out/2-flow" "$out/home" --add "$out"/metrics/*.json "$out/contact-sheet.png" "$out/2-flow/log.jsonl"
echo "done: $out/home and $out/raw"
