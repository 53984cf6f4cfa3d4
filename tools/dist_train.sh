#!/usr/bin/env bash
# Train on several processes of one machine, or of NNODES machines.
#
#   bash tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
#
# One process per GPU; without a GPU they run on the CPU (gloo). Variables:
# NNODES, NODE_RANK, MASTER_ADDR, PORT as in OpenMMLab (without any of them a
# free port of this machine is taken), PYTHON.
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
run_processes train.py "$2" "$1" --launcher pytorch "${@:3}"
