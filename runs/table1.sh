#!/usr/bin/env bash
# Table 1's tokenizers on one set of images, one row each: runs/table1.sh DATA OUT WEIGHTS [flowmo compare's flags]
#
# WEIGHTS is a folder with a sub-folder for each name of `flowmo compare --peers list`, holding the file or files that it
# lists; those that lack are left out and named. Example: WEIGHTS/llamagen-ds16/vq_ds16_c2i.pt. Our models: MODELS="a b".
set -euo pipefail
data=$1 out=$2 weights=$3
shift 3
peers=()
while read -r name file; do
  if [ -e "$weights/$name/$file" ]; then
    peers+=("$name=$weights/$name/$file")
  else
    echo "left out: $name, there is no $weights/$name/$file" >&2
  fi
done < <(${FLOWMO:-flowmo} compare --peers list --json | python3 -c '
import json, sys
for peer in json.load(sys.stdin):
    print(peer["name"], peer["files"][0])')
[ ${#peers[@]} -gt 0 ] || { echo "none of the tokenizers is in $weights" >&2; exit 2; }
# shellcheck disable=SC2086 - several models are several words
exec ${FLOWMO:-flowmo} compare "$data" --models ${MODELS-} --peers "${peers[@]}" --size "${SIZE:-256}" --out "$out" "$@"
