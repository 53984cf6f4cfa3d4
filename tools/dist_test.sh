#!/usr/bin/env bash
# Test a checkpoint on several processes of one machine, or of NNODES machines.
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
#
# One process per GPU; variables as of tools/dist_train.sh.
set -euo pipefail

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ $# -ge 3 ] || show_usage
launch_processes "$3" test.py "$1" "$2" --launcher pytorch "${@:4}"
