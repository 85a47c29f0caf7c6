#!/usr/bin/env bash
# A generator by guidance, temperature and Gumbel noise, in both conventions: runs/generation_sweep.sh DATA OUT [GENERATE'S FLAGS]
#
# Each of SETTINGS is convention:guidance:temperature:noise. TiTok's guidance s is ours less 1, so that maskgit:6 and
# titok:5 have the same guided logits. The temperature falls to 0.5 in both. Every step is passed over where it is done.
# The flags go to 'flowmo generate', such as --generator out/run --tokenizer lo.safetensors; without them it is the
# packaged pair. EACH: samples a class. STEPS: of unmasking. COUNT: pictures of DATA to compare with. DEVICE.
set -euo pipefail
data=$1 out=$2
shift 2
python=${PYTHON:-python} device=${DEVICE:-cpu} each=${EACH:-10} steps=${STEPS:-64} count=${COUNT:-}
settings=${SETTINGS:-maskgit:1:1:4.5 maskgit:2.5:1:4.5 maskgit:6:1:4.5 maskgit:11:1:4.5 maskgit:6:1.3:4.5 maskgit:6:1:50
  titok:0:1.3:2.8 titok:1.5:1.3:2.8 titok:5:1.3:2.8 titok:10:1.3:2.8 titok:5:1:2.8 titok:5:1.3:10}
flowmo() { echo "+ flowmo $*" >&2; "$python" -m flowmo "$@"; }

unmeasured=()
for setting in $settings; do
  IFS=: read -r convention guidance temperature noise <<<"$setting"
  name=$convention-guidance-$guidance-temperature-$temperature-noise-$noise
  [ -f "$out/results/$name.json" ] && continue
  [ -f "$out/samples/$name.npz" ] || flowmo generate --count "$each" --mask-steps "$steps" --convention "$convention" \
    --guidance "$guidance" --temperature "$temperature" --final-temperature 0.5 --choice-noise "$noise" --order sure \
    --npz "$out/samples/$name.npz" --no-pictures --batch-size 50 --device "$device" "$@"
  unmeasured+=("$out/samples/$name.npz")
done
[ ${#unmeasured[@]} = 0 ] || flowmo evaluate-generator "${unmeasured[@]}" "$data" --split validation \
  ${count:+--count "$count"} --out "$out/results" --device "$device"
