#!/usr/bin/env bash
# Makes .venv, or adds to it, with the tested set of versions. Usage: scripts/setup.sh [demo | everything]
# PYTHON=python3.12: another Python. NESTLING_TORCH_INDEX=https://download.pytorch.org/whl/cpu: torch from there.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-everything}
case $what in
    demo) extras=demo brings="the core and the demo's photographs: about 0.65 GB" ;;
    everything)
        extras=all,dev,executorch-runner
        if [ -n "${NESTLING_TORCH_INDEX:-}" ]; then brings="everything, torch from $NESTLING_TORCH_INDEX: some minutes"
        elif [ "$(uname -s)" = Linux ]; then brings="everything; torch for Linux brings CUDA libraries along: about 7 GB, some minutes"
        else brings="everything: some GB, some minutes"; fi
        ;;
    *) echo "setup: demo or everything, not $what" >&2; exit 2 ;;
esac

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
install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@"; }

echo "setup: installing into .venv $brings"
# Alone, and without what they need: that index also has other people's packages, which are to come from the usual one.
[ "$what" = demo ] || [ -z "${NESTLING_TORCH_INDEX:-}" ] || install --no-deps --index-url "$NESTLING_TORCH_INDEX" torch torchvision
install -e ".[$extras]"
touch .venv/core
[ "$what" = demo ] || touch .venv/everything
