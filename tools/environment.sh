# Functions of the other scripts: find Python, make the environment, launch.
# shellcheck shell=bash

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Print the Python that has the package: $PYTHON, that of the active virtual
# environment, that of .venv, else python or python3 of the path.
find_python() {
    local active=${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}
    local own=${EAGLENET_MM_VENV:-$repository/.venv}/bin/python
    [ -x "$own" ] || own=python
    command -v "$own" >/dev/null || own=python3
    echo "${PYTHON:-${active:-$own}}"
}

# Print the header of the running script and exit.
show_usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$repository/tools/${0##*/}" >&2
    exit 2
}

# launch_processes NUMBER SCRIPT [ARGUMENTS], on this machine or on $NNODES.
launch_processes() {
    local meeting=(--standalone)
    if [ -n "${NNODES:-}${NODE_RANK:-}${MASTER_ADDR:-}${PORT:-}" ]; then
        meeting=(
            "--nnodes=${NNODES:-1}"
            "--node_rank=${NODE_RANK:-0}"
            "--master_addr=${MASTER_ADDR:-127.0.0.1}"
            "--master_port=${PORT:-29500}"
        )
    fi
    exec "$(find_python)" -m torch.distributed.run "${meeting[@]}" \
        --nproc_per_node="$1" "$repository/tools/$2" "${@:3}"
}

# launch_slurm PARTITION JOB_NAME SCRIPT [ARGUMENTS]
launch_slurm() {
    local gpus=${GPUS:-8} gpus_per_node=${GPUS_PER_NODE:-8} more
    if [ "$gpus" -lt "$gpus_per_node" ]; then
        gpus_per_node=$gpus
    fi
    read -r -a more <<<"${SRUN_ARGS:-}"
    MASTER_PORT=${PORT:-29500} exec srun -p "$1" --job-name="$2" \
        --gres="gpu:$gpus_per_node" --ntasks="$gpus" \
        --ntasks-per-node="$gpus_per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
        ${more[@]+"${more[@]}"} "$(find_python)" -u \
        "$repository/tools/$3" "${@:4}"
}

# ensure_environment EXTRAS: create the virtual environment (.venv or
# $EAGLENET_MM_VENV) with $BASE_PYTHON, and install the package with these
# extras if its pins have changed or an extra is missing. Sets $python.
ensure_environment() {
    local extras=$1 venv=${EAGLENET_MM_VENV:-$repository/.venv}
    python=$venv/bin/python
    if [ ! -x "$python" ]; then
        local base
        base=$(find_base_python)
        echo "Making a virtual environment in $venv with $base"
        "$base" -m venv "$venv"
    fi
    local stamp=$venv/eaglenet_mm.installed pins extra known='' found=''
    local missing=''
    pins=$(cd "$repository" && { pwd && cat setup.py pyproject.toml \
        constraints.txt; } | cksum)
    if [ -f "$stamp" ]; then
        { read -r known && read -r found; } <"$stamp" || true
    fi
    for extra in ${extras//,/ }; do
        [[ " $found " == *" $extra "* ]] || missing+=" $extra"
    done
    if [ "$known" = "$pins" ] && [ -z "$missing" ]; then
        echo "Using the environment in $venv"
        return
    fi
    echo "Installing into $venv (some minutes the first time)"
    rm -f "$stamp"
    (cd "$repository" && "$python" -m pip install --quiet \
        --disable-pip-version-check -c constraints.txt -e ".[$extras]")
    # after a change of the pins, extras of before may not fit any more
    [ "$known" = "$pins" ] || found=
    printf '%s\n%s\n' "$pins" "$found ${extras//,/ }" >"$stamp"
}

# The wheel of torchcodec has no FFmpeg: link the libraries of PyAV's wheel under
# the names it looks for, and set LD_LIBRARY_PATH. Does nothing where PyAV has
# no such folder (macOS, custom builds).
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

# Print the best Python available; the pins were tested with 3.11.
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
