#!/usr/bin/env bash
# Test a checkpoint on several processes of one machine, or of NNODES machines.
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
#
# One process per GPU; without a GPU they run on the CPU (gloo). Variables:
# NNODES, NODE_RANK, MASTER_ADDR, PORT as in OpenMMLab (without any of them a
# free port of this machine is taken), PYTHON.
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_processes test.py "$3" "$1" "$2" --launcher pytorch "${@:4}"
