#!/usr/bin/env bash
# Train under slurm.
#
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
#
# Variables: GPUS (8 in all), GPUS_PER_NODE (8), CPUS_PER_TASK (5),
# SRUN_ARGS (more options of srun), PORT, PYTHON.
set -euo pipefail

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ $# -ge 3 ] || show_usage
launch_slurm "$1" "$2" train.py "$3" --launcher slurm "${@:4}"
