#!/usr/bin/env bash
# Tables 3, 4, 5 and 7 and Figures 7 and 9: trains and measures every row, gathers the numbers, and writes them beside the
# paper's into docs/ABLATIONS.md.
#   runs/ablations.sh DATA OUT [flags of tools/ablations.py, such as --dry-run]
# PRESET: small (default; 32 x 32 pixels, at most four hours of two cores), or flowmo-fewer-params by the published
# settings, for a lab. JOBS: commands at a time, one a core or GPU. DEVICE=cuda GPUS=8: on GPUs. SEEDS: 3 by default.
# It may be stopped at any time; the same command does what is left. What is there is gathered in either case.
set -euo pipefail
data=$1 out=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python}
scale=(--preset "${PRESET:-small}" --seeds "${SEEDS:-3}" ${IMAGES:+--images "$IMAGES"}
  ${POST_IMAGES:+--post-images "$POST_IMAGES"} ${COUNT:+--count "$COUNT"})
code=0
"$python" "$root/tools/ablations.py" run "$data" "$out" "${scale[@]}" --jobs "${JOBS:-1}" --gpus "${GPUS:-1}" \
  --device "${DEVICE:-cpu}" "$@" || code=$?
case " $* " in *" --dry-run "*) exit "$code" ;; esac
"$python" "$root/tools/ablations.py" gather "$out" "${RESULT:-$root/results/ablations.json}" "${scale[@]}"
[ -n "${RESULT:-}" ] || "$python" "$root/tools/render_readme.py"
exit "$code"
