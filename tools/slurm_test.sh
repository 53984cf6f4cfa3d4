#!/usr/bin/env bash
# Test a checkpoint under slurm.
#
#   bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
#
# Variables as of tools/slurm_train.sh.
set -euo pipefail

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ $# -ge 4 ] || show_usage
launch_slurm "$1" "$2" test.py "$3" "$4" --launcher slurm "${@:5}"
