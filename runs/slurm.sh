#!/usr/bin/env bash
# A training on several machines under Slurm; the same submission again goes on where it stopped.
#   sbatch --nodes 2 runs/slurm.sh DATA OUT [more of flowmo train]
# DATA and OUT must be the same paths on every machine; see docs/CLUSTER.md.
#SBATCH --job-name=flowmo
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@600
#SBATCH --requeue
set -euo pipefail
data=$1 out=$2
shift 2
[ $# -gt 0 ] || set -- --preset flowmo-lo --recipe published
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Without this the launcher keeps the addresses of processes that died, and those that come after wait for them.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
# srun hands the signal before the limit to every process: all stop with a checkpoint.
exec srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes "$SLURM_NNODES" --nproc-per-node "${GPUS:-8}" --max-restarts 3 \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:${PORT:-29500}" \
  -m flowmo train "$data" "$out" "$@"
