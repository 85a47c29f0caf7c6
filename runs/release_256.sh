#!/usr/bin/env bash
# The recipe of the packaged model on a GPU, larger: runs/release_256.sh DATA OUT [--time-limit 22m] [...]
#
#   --time-limit TIME   for the whole training; fixes the lengths of its phases once (default: 22m)
#   --call TIME         stop with a checkpoint after this long; the same command goes on (default: no limit)
#   --preset NAME       flowmo-base (default), or another model of any rate
#   --init WEIGHTS      go on from these weights of an earlier release instead of the closed form
#   --rehearsal         the same in small, to try it out on any machine
#
# DATA: images that flowmo train takes, with the splits train and validation; tools/pack_images.py makes small files of
# them. Weights of LPIPS may lie there as lpips_vgg.safetensors and lpips_alex.safetensors. Files that arrive in DATA
# between two calls are used from the next call on. Needs torch (2.11 or newer), numpy, Pillow and safetensors, no
# installation. Killed anywhere, the same command goes on.
#
# OUT/home: the model in half precision in files below 16 MB, its rate curve, its card, the plan. OUT/raw: after a call
# that ends in the middle of training, the weights of that moment. docs/RELEASE.md tells how to use it on a rented machine.
set -euo pipefail
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
[ $# -ge 2 ] || usage
data=$1 out=$2
shift 2
limit=22m call=1000h preset=flowmo-base init= rehearsal=
while [ $# -gt 0 ]; do
  case $1 in
    --time-limit) limit=$2 && shift 2 ;;
    --call) call=$2 && shift 2 ;;
    --preset) preset=$2 && shift 2 ;;
    --init) init=$2 && shift 2 ;;
    --rehearsal) rehearsal=yes && shift ;;
    *) usage ;;
  esac
done
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHON=${PYTHON:-python3} PYTHONPATH=$root/src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
tool() { echo "+ $*"; "$PYTHON" "$root/tools/$1.py" "${@:2}"; }
planned() { "$PYTHON" -c 'import json, sys; p = json.load(open(sys.argv[1])); print(str(p["images"].get(sys.argv[2], p.get(sys.argv[2]))).lower())' "$out/plan.json" "$1"; }
find "$data" -type f -path '*validation*' 2>/dev/null | grep -q . || { echo "$data has no split validation; put held-out pictures there" >&2 && exit 2; }

# What differs from the recipe of two cores: batches, precision and the size of the model.
mkdir -p "$out"
crop=128 part=64 batch=64 workers=12 model=()
settings=(precision=bf16)
[ "$("$PYTHON" -c 'import torch; print(torch.cuda.is_available())')" = True ] && device=cuda || device=cpu
if [ $rehearsal ]; then
  crop=32 part=32 batch=4 workers=1 preset=flowmo-mini-8 settings=(precision=fp32 checkpoint_minutes=0.02 log_steps=2)
  model=(decoder.width=64 decoder.depth=1 decoder.heads=1)
  export VALIDATE=4 COUNT=4 RATES="9 18"
fi
export FLOWMO_CACHE=${FLOWMO_CACHE:-$out/cache}
mkdir -p "$FLOWMO_CACHE"
for network in vgg alex; do # in the cache every command finds them
  [ ! -e "$data/lpips_$network.safetensors" ] || cp "$data/lpips_$network.safetensors" "$FLOWMO_CACHE"
done

tool plan_release "$data" "$out" --preset "$preset" ${model[@]+--model "${model[@]}"} --crop $crop --time-limit "$limit" \
  --set batch_size=$batch perceptual_share=0.5 perceptual_crop=$part "${settings[@]}"

[ -z "$init" ] || export START=$init
PRESET=$preset MODEL=${model[*]-} DEVICE=$device CROP=$crop PART=$part SHARE=0.5 BATCH=$batch WORKERS=$workers \
  CROPS=$(planned crops) LPIPS=$(planned lpips) WHOLE=$(planned whole) COOL=$(($(planned whole) / 2)) SEEKING=$(planned seeking) \
  METRICS=${METRICS:-psnr ssim lpips_alex} SET="${settings[*]} compile=$(planned compile)" \
  bash "$root/runs/packaged.sh" "$data" "$out" "$call"

if [ ! -e "$out/package/card.json" ]; then
  newest=$(ls -d "$out"/[1-4]-*/checkpoint-* 2>/dev/null | tail -1)
  [ -z "$newest" ] || tool export_weights "$(dirname "$newest")" "$out/raw" --checkpoint --add "$out/plan.json"
  exit 0
fi
tool export_weights "$out/package/$preset.safetensors" "$out/home" --add "$out"/results/*.json "$out"/package/card.* "$out/plan.json"
echo "done: $out/home"
