# Sourced by the scripts beside it: which Python they use, and how the
# environment of a checkout is made.
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
