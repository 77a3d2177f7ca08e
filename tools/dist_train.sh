#!/usr/bin/env bash
# Train with one or several processes, with or without CUDA:
#   bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# GPUS counts the processes on this machine; without CUDA they run on the CPU.
# NNODES, NODE_RANK, MASTER_ADDR and PORT are as in OpenMMLab.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: bash tools/dist_train.sh CONFIG GPUS [options]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
shift 2
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python}
export PYTHONPATH="$(dirname "$TOOLS")${PYTHONPATH:+:$PYTHONPATH}"

# One process needs no launcher: no port to be taken, plain error messages,
# and torch finds the number of cores by itself.
if [ "$GPUS" = 1 ] && [ "${NNODES:-1}" = 1 ]; then
    exec "$PYTHON" "$TOOLS/train.py" "$CONFIG" "$@"
fi

# Share the cores, or every process starts as many threads as there are.
THREADS=$(($(getconf _NPROCESSORS_ONLN) / GPUS))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((THREADS > 0 ? THREADS : 1))}
export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}

exec "$PYTHON" "$TOOLS/dist_run.py" \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "$@"
