#!/usr/bin/env bash
# Everything a GPU can tell, in eight minutes: tests, golden data, benchmarks.
#
#   bash tools/benchmark/gpu.sh OUT_DIR [--stages a,b] [--smoke]
#
# See gpu.py beside it for all options. gpu_tables.py brings the results into
# docs/performance.md.
set -euo pipefail

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
exec "$(find_python)" "$repository/tools/benchmark/gpu.py" "$@"
