#!/usr/bin/env bash
# Train under slurm.
#
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
#
# Variables: GPUS (8 in all), GPUS_PER_NODE (8), CPUS_PER_TASK (5),
# SRUN_ARGS (more options of srun), PORT, PYTHON.
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_slurm train.py "$1" "$2" "$3" --launcher slurm "${@:4}"
