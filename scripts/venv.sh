#!/bin/sh
# Make or refresh the virtual environment in $1 with the Python named by $PYTHON (3.11 or newer).
set -eu
folder=$1
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "make: $python is not a Python of 3.11 or newer; install one, or name one: make PYTHON=/path/to/python3.11 ..." >&2
    exit 1
}

if [ ! -x "$folder/bin/python" ]; then
    # Debian splits venv and pip off its Python.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m cluster packages --install || {
            echo "make: this Python lacks the module venv; on Debian: apt-get install python3-venv" >&2
            exit 1
        }
    fi
    echo "making $folder with $("$python" --version)"
    "$python" -m venv "$folder"
fi

echo "installing $(grep -c '^[a-z].*==' requirements/dev.txt) pinned packages into $folder (about a minute the first time)"
quiet=--quiet
[ -t 1 ] && quiet=--progress-bar=on
"$folder/bin/python" -m pip install --disable-pip-version-check $quiet --require-hashes --requirement requirements/dev.txt
"$folder/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation \
    --editable operator --editable indexer --editable cli
"$folder/bin/python" -m pip check >/dev/null
