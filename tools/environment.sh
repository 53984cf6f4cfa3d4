# Sourced by the scripts beside it: which Python they use, how they start
# processes, and how the environment of a checkout is made.
# shellcheck shell=bash

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Print the Python that has the package: $PYTHON, that of the active virtual
# environment, that of .venv, else python or python3 of the path.
find_python() {
    local own=${EAGLENET_MM_VENV:-$repository/.venv}/bin/python
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
    elif [ -n "${VIRTUAL_ENV:-}" ]; then
        echo "$VIRTUAL_ENV/bin/python"
    elif [ -x "$own" ]; then
        echo "$own"
    elif command -v python >/dev/null; then
        echo python
    else
        echo python3
    fi
}

# Make the virtual environment (.venv, or $EAGLENET_MM_VENV) if there is none,
# and install the package with its pins if they changed since the last time.
# Sets $python. $BASE_PYTHON chooses the Python it is made with.
ensure_environment() {
    local venv=${EAGLENET_MM_VENV:-$repository/.venv}
    python=$venv/bin/python
    if [ ! -x "$python" ]; then
        local base
        base=$(find_base_python)
        echo "Making a virtual environment in $venv with $base"
        "$base" -m venv "$venv"
    fi
    local stamp=$venv/eaglenet_mm.installed wanted
    wanted=$(cd "$repository" && pwd && cat setup.py pyproject.toml \
        constraints.txt | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        echo "Using the environment in $venv"
        return
    fi
    echo "Installing into $venv (some minutes the first time)"
    rm -f "$stamp"
    (cd "$repository" && "$python" -m pip install --quiet \
        --disable-pip-version-check -c constraints.txt -e '.[dev,lite]')
    echo "$wanted" >"$stamp"
}

# Run a tool in this many processes of this machine, or of NNODES machines.
#   run_processes TOOL PROCESSES CONFIG [options of the tool]
run_processes() {
    local tool=$1 processes=$2 meeting=(--standalone)
    shift 2
    if [ -n "${NNODES:-}${NODE_RANK:-}${MASTER_ADDR:-}${PORT:-}" ]; then
        meeting=(
            "--nnodes=${NNODES:-1}"
            "--node_rank=${NODE_RANK:-0}"
            "--master_addr=${MASTER_ADDR:-127.0.0.1}"
            "--master_port=${PORT:-29500}"
        )
    fi
    exec "$(find_python)" -m torch.distributed.run \
        "${meeting[@]}" --nproc_per_node="$processes" \
        "$repository/tools/$tool" "$@"
}

# Run a tool under slurm.
#   run_slurm TOOL PARTITION JOB_NAME CONFIG [options of the tool]
run_slurm() {
    local tool=$1 partition=$2 job_name=$3 gpus=${GPUS:-8} more
    shift 3
    local each=${GPUS_PER_NODE:-8}
    if [ "$gpus" -lt "$each" ]; then
        each=$gpus
    fi
    read -r -a more <<<"${SRUN_ARGS:-}"
    export MASTER_PORT=${PORT:-29500}
    exec srun -p "$partition" \
        --job-name="$job_name" \
        --gres="gpu:$each" \
        --ntasks="$gpus" \
        --ntasks-per-node="$each" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        "${more[@]}" \
        "$(find_python)" -u "$repository/tools/$tool" "$@"
}

# Let torchcodec, whose wheel has no FFmpeg, find the libraries in PyAV's wheel:
# links of the names it asks for, and LD_LIBRARY_PATH. Does nothing where PyAV
# has no such folder (macOS, builds of one's own).
find_ffmpeg() {
    local venv=${EAGLENET_MM_VENV:-$repository/.venv} libraries file name
    for libraries in "$venv"/lib/python3*/site-packages/av.libs; do
        [ -d "$libraries" ] || return 0
        mkdir -p "$venv/ffmpeg"
        for file in "$libraries"/libav*.so.* "$libraries"/libsw*.so.*; do
            # libavutil-5809ad29.so.60.26.102 is libavutil.so.60
            name=$(basename "$file" |
                sed -E 's/-[0-9a-f]+(\.so\.[0-9]+).*/\1/')
            ln -sf "$file" "$venv/ffmpeg/$name"
        done
        export LD_LIBRARY_PATH=$venv/ffmpeg:$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    done
}

# Print the best Python at hand: the pins were verified with 3.11.
find_base_python() {
    local name
    for name in ${BASE_PYTHON:-python3.11 python3.12 python3.13 python3.10 python3}; do
        if "$name" -c 'import sys, venv
sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo 'Python 3.10 to 3.13 with its venv module is needed, but none was' \
        'found. Install one, or name it: BASE_PYTHON=/path/to/python' >&2
    return 1
}
