#!/usr/bin/env bash
# Train on several processes of one machine, or of NNODES machines.
#
#   bash tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
#
# One process per GPU; without a GPU they run on the CPU (gloo). Variables:
# NNODES, NODE_RANK, MASTER_ADDR, PORT as in OpenMMLab (without any of them a
# free port of this machine is taken), PYTHON.
set -euo pipefail

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ $# -ge 2 ] || show_usage
launch_processes "$2" train.py "$1" --launcher pytorch "${@:3}"
