#!/usr/bin/env bash
# Build the documentation into docs/_build/html. Warnings are errors, and so
# are broken links between pages.
#
#   bash tools/build_docs.sh [--external]
#
# --external also tries every link to another site, which needs the network.
# Variables: EAGLENET_MM_VENV (instead of .venv), BASE_PYTHON.
set -euo pipefail

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$repository"
builders=(html)
case ${1:-} in
    --external) builders+=(linkcheck) ;;
    '') ;;
    *) show_usage ;;
esac
ensure_environment docs,lite,serve
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
for builder in "${builders[@]}"; do
    "$python" -m sphinx --quiet --fail-on-warning --keep-going \
        --fresh-env --builder "$builder" docs "docs/_build/$builder"
done
echo "The first page is docs/_build/html/index.html"
