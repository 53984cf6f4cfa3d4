#!/usr/bin/env bash
# From a fresh checkout to a trained, tested and searchable EagleNet, on CPU.
#
#   bash tools/quickstart.sh [--fresh]
#
# Makes the environment, generates the story videos, trains and tests EagleNet
# and the mean-pooling baseline, tests EagleNet untrained, answers one query.
# A second call skips finished trainings if code, configs and data are the same,
# and resumes an interrupted one; --fresh trains anew.
# Works from any directory. Variables: EAGLENET_MM_VENV (instead of .venv),
# BASE_PYTHON, QUERY (the sentence to search for).
set -euo pipefail

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$repository"
out=work_dirs/quickstart
query=${QUERY:-a red square moves up on a grey background}
case ${1:-} in
    --fresh) rm -rf "$out" ;;
    '') ;;
    *) show_usage ;;
esac
trap 'echo "Stopped. The same command goes on from the last checkpoint." >&2
exit 130' INT TERM
export HF_HUB_OFFLINE=1
# One thread for the model, the other core for the videos.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

step() { printf '\n== %s\n' "$*"; }

# Train CONFIG into its folder unless that has happened, with these inputs.
train() {
    local name=$1 folder=$out/$1 inputs resume=()
    inputs=$(fingerprint)
    if [ "$(cat "$folder/finished" 2>/dev/null)" = "$inputs" ]; then
        echo "$folder is trained already; --fresh trains it anew."
        return
    fi
    if [ "$(cat "$folder/started" 2>/dev/null)" = "$inputs" ]; then
        echo "Going on with the interrupted training in $folder"
        resume=(--resume)
    else
        rm -rf "$folder"
        mkdir -p "$folder"
        echo "$inputs" >"$folder/started"
    fi
    "$python" tools/train.py "configs/$name.py" --work-dir "$folder" \
        "${resume[@]}"
    echo "$inputs" >"$folder/finished"
}

# A number that changes with code, configs and annotations.
fingerprint() {
    find eaglenet_mm configs data/story tools/train.py \
        \( -name '*.py' -o -name '*.json' -o -name '*.txt' \) -type f -print0 |
        sort -z | xargs -0 cat | cksum
}

# Print the best checkpoint of a training.
best() {
    local file newest=
    for file in "$out/$1"/best_*.pth; do
        if [ "$file" -nt "$newest" ]; then newest=$file; fi
    done
    if [ -z "$newest" ]; then
        echo "$out/$1 holds no best_*.pth; train anew with --fresh." >&2
        return 1
    fi
    echo "$newest"
}

step '1/7 environment'
ensure_environment

step '2/7 story videos'
"$python" tools/dataset_converters/story.py --out data/story

step '3/7 train EagleNet'
train eaglenet_story

step '4/7 test its best checkpoint on unseen combinations'
checkpoint=$(best eaglenet_story)
index=$out/videos-$(cksum <"$checkpoint" | cut -d' ' -f1).index
"$python" tools/test.py configs/eaglenet_story.py "$checkpoint" \
    --work-dir "$out/eaglenet_story/test"

step "5/7 search for: $query"
"$python" tools/index.py data/story/videos --config configs/eaglenet_story.py \
    --checkpoint "$checkpoint" --out "$index"
"$python" tools/search.py "$index" "$query" -k 5

step '6/7 for comparison: mean pooling, equally trained, and no training'
train mean_pooling_story
baseline=$(best mean_pooling_story)
"$python" tools/test.py configs/mean_pooling_story.py "$baseline" \
    --work-dir "$out/mean_pooling_story/test"
"$python" tools/test.py configs/eaglenet_story.py none \
    --work-dir "$out/untrained"

step '7/7 result'
"$python" tools/quickstart_report.py data/story/test.json "$out"
