#!/usr/bin/env bash
# Make the environment if needed and run the tests.
#
#   bash tools/run_tests.sh [options of pytest]
#
# Two tests run at a time; --all adds those marked nightly. Works from any
# directory.
# Variables: EAGLENET_MM_VENV (instead of .venv), BASE_PYTHON.
set -euo pipefail

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$repository"
ensure_environment dev,lite
find_ffmpeg

# One thread per process; no test may use the network.
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
echo "Running pytest in $repository"
exec "$python" -m pytest -n "${TEST_PROCESSES:-2}" --dist worksteal \
    --timeout 600 "$@"
