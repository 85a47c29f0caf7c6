#!/usr/bin/env bash
# The 64-pixel sibling, and a generator on its tokens: runs/small.sh DATA OUT [TIME]
#
# DATA: labelled images with the splits train and validation, at least 64 x 64 pixels. OUT: gets tokenizer/ (see
# runs/packaged.sh: tokens of 8 x 8 pixels and 18 bits) and generator/ (see runs/generator.sh, whose settings it takes).
# TIME: how long this call may train each (default: 2h). The same command goes on.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2; }
here=$(dirname "$0")
PRESET=flowmo-mini-8 CROP=64 PART=${PART:-64} BATCH=${BATCH:-32} RATES=${RATES:-3 6 9 12 15 18} \
  CROPS=${CROPS:-100000} LPIPS=${LPIPS:-400000} WHOLE=${WHOLE:-100000} \
  SET="rates.full_share=0.7 rates.often_share=0 ${SET:-}" bash "$here/packaged.sh" "$1" "$2/tokenizer" "${3:-2h}"
[ -d "$2/tokenizer/package" ] || exit 0
mkdir -p "$2/generator"
PYTHONPATH=$(cd "$here/.." && pwd)/src${PYTHONPATH:+:$PYTHONPATH} PYTHON=${PYTHON:-python3} BITS=9 \
  TOKENIZER=$(cd "$2/tokenizer/package" && pwd)/flowmo-mini-8.safetensors PRESET=${GENERATOR:-maskgit-mini} \
  IMAGES=${IMAGES:-300000} LIMIT=${3:-2h} bash "$here/generator.sh" "$1" "$2/generator"
