#!/usr/bin/env bash
# Makes .venv with the tested set of versions. Usage: scripts/setup.sh   (PYTHON=python3.12 scripts/setup.sh for another Python)
set -euo pipefail
cd "$(dirname "$0")/.."

suits() { command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

python=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if suits "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "setup: needs Python 3.11, 3.12 or 3.13; found $(python3 --version 2>&1 || echo none). Name one:  make setup PYTHON=/path/to/python3.12" >&2
    exit 1
fi

if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -q && apt-get install -q -y python3-venv
    else
        echo "setup: $python lacks venv. Install it:  sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "setup: installing into .venv (torch for Linux brings CUDA libraries along: about 5.5 GB, some minutes)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev,search]'
touch .venv/ready
