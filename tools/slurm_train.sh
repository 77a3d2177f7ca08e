#!/usr/bin/env bash
# Train as a Slurm job that goes on after a pre-emption or its time limit:
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options]
# GPUS, CPUS_PER_TASK and SBATCH_ARGS are read from the environment; the
# options are those of tools/train.py. The job is put back into the queue as
# often as it takes, and resumes the run of WORK_DIR each time; what it says is
# in WORK_DIR/slurm-<job>.out.
# Of a config with `images_per_step`, SBATCH_ARGS=--array=0-7 has eight jobs
# share out the images among them; the results are in one folder.
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR" \
        "[options]" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
GPUS=${GPUS:-1}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}

if [ -z "${SLURM_TRAIN_DIR:-}" ]; then # not in the job yet
    mkdir -p "$WORK_DIR"
    TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    # Two minutes before its time is up the shell of the job gets USR1. Slurm
    # keeps a copy of this script alone, so it has to know where the tools are.
    # shellcheck disable=SC2086  # several arguments
    exec sbatch \
        --partition="$PARTITION" \
        --job-name="$JOB_NAME" \
        --gres="gpu:$GPUS" \
        --nodes=1 \
        --ntasks=1 \
        --cpus-per-task="$((CPUS_PER_TASK * GPUS))" \
        --output="$WORK_DIR/slurm-%j.out" \
        --open-mode=append \
        --requeue \
        --signal=B:USR1@120 \
        --export="ALL,SLURM_TRAIN_DIR=$TOOLS,GPUS=$GPUS" \
        ${SBATCH_ARGS:-} \
        "${BASH_SOURCE[0]}" "$@"
fi
shift 4

SHARE=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    TASK=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))
    TASK=$((TASK / ${SLURM_ARRAY_TASK_STEP:-1}))
    SHARE=(--share "$TASK/$SLURM_ARRAY_TASK_COUNT")
fi

# The first start finds nothing to resume, and says so.
bash "$SLURM_TRAIN_DIR/dist_train.sh" "$CONFIG" "$GPUS" \
    --work-dir "$WORK_DIR" --resume ${SHARE[@]+"${SHARE[@]}"} "$@" &
TRAINING=$!
REQUEUE=
# The training saves at the end of its iteration and ends with 143. At TERM it
# was cancelled, or pre-empted, after which Slurm requeues it by itself.
trap 'REQUEUE=1; kill -TERM "$TRAINING" || true' USR1
trap 'kill -TERM "$TRAINING" || true' TERM

CODE=0
wait "$TRAINING" || CODE=$?
while kill -0 "$TRAINING" 2>/dev/null; do # a signal ended the waiting only
    CODE=0
    wait "$TRAINING" || CODE=$?
done
if [ -n "$REQUEUE" ] && [ "$CODE" = 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$CODE"
