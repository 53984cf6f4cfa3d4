#!/usr/bin/env bash
# From a fresh checkout to a trained, tested and searchable EagleNet, on CPU.
#
#   bash tools/quickstart.sh [--fresh]
#
# Makes the environment, generates the story videos, trains EagleNet, X-Pool and
# mean pooling under the same budget, tests them, makes a page of EagleNet's
# results and an index of the test videos, and asks it one sentence.
# A second call skips finished trainings if code, configs and data are the same,
# and resumes interrupted ones; --fresh trains anew. The screen shows a summary,
# work_dirs/quickstart/log.txt the rest.
# Works from any directory. Variables: EAGLENET_MM_VENV (instead of .venv),
# BASE_PYTHON, QUERY (the sentence to search for), SEED (of videos and
# trainings; default: 0).
set -euo pipefail

# shellcheck source=tools/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$repository"
out=work_dirs/quickstart
data=data/story
seed=${SEED:-0}
case ${1:-} in
    --fresh) rm -rf "$out" ;;
    '') ;;
    *) show_usage ;;
esac
mkdir -p "$out"
log=$out/log.txt
: >"$log"
export HF_HUB_OFFLINE=1
# One thread for each model: trainings share the cores.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

start=$SECONDS
step() { printf '%2d min  %s\n' $(((SECONDS - start) / 60)) "$*" | tee -a "$log"; }

# quietly COMMAND: write its output to the log; if it fails, show the end of it.
quietly() {
    local status=0
    "$@" >>"$log" 2>&1 || status=$?
    if [ "$status" != 0 ]; then
        printf '\n%s failed. The end of %s:\n' "$1 ${2:-}" "$log" >&2
        tail -n 15 "$log" >&2
        return "$status"
    fi
}

# What is done beside the rest ends with the script, however that ends.
slow=
leave() {
    if [ -n "$slow" ]; then
        kill -- "-$slow" 2>/dev/null || true
        wait "$slow" 2>/dev/null || true
    fi
}
trap leave EXIT
trap 'echo "Stopped. The same command goes on from the last checkpoint." >&2
exit 130' INT TERM HUP

# A number that changes with code, configs, annotations and seed.
fingerprint() {
    echo "$seed"
    find eaglenet_mm configs "$data" tools/train.py \
        \( -name '*.py' -o -name '*.json' -o -name '*.txt' \) -type f -print0 |
        sort -z | xargs -0 cat
}

# Train CONFIG into its folder unless that has happened, with these inputs.
train() {
    local name=$1 folder=$out/$1 resume=()
    if [ "$(cat "$folder/finished" 2>/dev/null)" = "$inputs" ]; then
        echo "         $name is trained already; --fresh trains it anew."
        return
    fi
    if [ "$(cat "$folder/started" 2>/dev/null)" = "$inputs" ]; then
        echo "         going on with the interrupted training of $name"
        resume=(--resume)
    else
        rm -rf "$folder"
        mkdir -p "$folder"
        echo "$inputs" >"$folder/started"
    fi
    "$python" tools/train.py "configs/$name.py" --work-dir "$folder" \
        ${resume[@]+"${resume[@]}"} --cfg-options frame_cache=frame_cache \
        randomness.seed="$seed" >"$folder/log.txt" 2>&1 || {
        printf '\nTraining %s failed. The end of %s/log.txt:\n' \
            "$name" "$folder" >&2
        tail -n 15 "$folder/log.txt" >&2
        return 1
    }
    echo "$inputs" >"$folder/finished"
    step "  $name is trained"
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

# measure CONFIG CHECKPOINT NAME [OPTIONS]: test on scenes never seen.
measure() {
    quietly "$python" tools/test.py "configs/$1.py" "$2" \
        --work-dir "$out/$3" "${@:4}" \
        --cfg-options frame_cache=frame_cache randomness.seed="$seed"
}

step 'environment'
ensure_environment lite,serve

step 'story videos, and their frames in a cache'
quietly "$python" tools/dataset_converters/story.py --out "$data" \
    --seed "$seed"
quietly "$python" tools/cache_frames.py configs/eaglenet_story.py --workers 2

step 'training: EagleNet beside mean pooling, then X-Pool, a core each'
inputs=$(fingerprint | cksum)
set -m # a process group of its own, to end all of it
train eaglenet_story &
slow=$!
set +m
# the two cheap ones take as long as the dear one
train mean_pooling_story
train x_pool_story
wait "$slow"
slow=

step 'testing on scenes never seen; a page of the results'
checkpoint=$(best eaglenet_story)
moments=(--moments 2s --overlap 0.5 --corpus)
measure eaglenet_story "$checkpoint" eaglenet_story/test \
    "${moments[@]}" --show-dir "$out/page"
for name in mean_pooling_story x_pool_story; do
    measure "$name" "$(best "$name")" "$name/test" "${moments[@]}"
done
measure eaglenet_story none untrained

step 'indexing the test videos'
index=$out/test-videos-$(cksum <"$checkpoint" | cut -d' ' -f1).index
quietly "$python" tools/index.py "$data/videos/test" --out "$index" \
    --config configs/eaglenet_story.py --checkpoint "$checkpoint" \
    --segment 2s --overlap 0.5

step 'done'
"$python" tools/quickstart_report.py "$data/test.json" "$out" "$index" \
    ${QUERY:+--query "$QUERY"} 2>>"$log" | tee -a "$log" || {
    tail -n 15 "$log" >&2
    exit 1
}
