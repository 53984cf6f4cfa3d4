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
config=$1
processes=$2
shift 2
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# shellcheck source=tools/environment.sh
source "$tools/environment.sh"

if [ -z "${NNODES:-}${NODE_RANK:-}${MASTER_ADDR:-}${PORT:-}" ]; then
    meeting=(--standalone)
else
    meeting=(
        "--nnodes=${NNODES:-1}"
        "--node_rank=${NODE_RANK:-0}"
        "--master_addr=${MASTER_ADDR:-127.0.0.1}"
        "--master_port=${PORT:-29500}"
    )
fi

exec "$(find_python)" -m torch.distributed.run \
    "${meeting[@]}" --nproc_per_node="$processes" \
    "$tools/train.py" "$config" --launcher pytorch "$@"
