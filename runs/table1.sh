#!/usr/bin/env bash
# Table 1 by the published protocol, a result for each tokenizer: runs/table1.sh DATA OUT WEIGHTS [flowmo evaluate's flags]
#
# WEIGHTS holds our released flowmo_lo.pth and flowmo_hi.pth, and a folder for each name of `flowmo compare --peers list`
# with the file or files that it lists, such as WEIGHTS/llamagen-ds16/vq_ds16_c2i.pt. What lacks is left out and named.
# SIZE: pixels a side of the others (256). A killed run goes on where it was when it is started again.
set -euo pipefail
data=$1 out=$2 weights=$3
shift 3
models=() peers=()
for model in flowmo_lo.pth flowmo_hi.pth; do
  if [ -e "$weights/$model" ]; then
    models+=("$weights/$model")
  else
    echo "left out: there is no $weights/$model" >&2
  fi
done
while read -r name files; do
  first="$weights/$name/${files%% *}"
  for file in $files; do
    [ -e "$weights/$name/$file" ] || { echo "left out: $name, there is no $weights/$name/$file" >&2; continue 2; }
  done
  peers+=("$name=$first")
done < <(${FLOWMO:-flowmo} compare --peers list --json | python3 -c '
import json, sys
for peer in json.load(sys.stdin):
    print(peer["name"], *peer["files"])')
[ ${#models[@]} -gt 0 ] || [ ${#peers[@]} -gt 0 ] || { echo "none of the tokenizers is in $weights" >&2; exit 2; }
# an array without elements counts as unset in older shells
exec ${FLOWMO:-flowmo} evaluate ${models[@]+"${models[@]}"} "$data" ${peers[@]+--peers "${peers[@]}"} \
  --peer-size "${SIZE:-256}" --protocol published --out "$out" "$@"
