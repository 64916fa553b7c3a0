#!/usr/bin/env bash
# The core alone, as somebody gets it: the built wheel in a new environment, without torch, and every command of the core.
# Usage: scripts/core_check.sh [FOLDER]   (FOLDER keeps the environment and what the commands made; else it is all removed)
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD

if [ $# -gt 0 ]; then
    mkdir -p "$1"
    at=$(cd "$1" && pwd)
else
    at=$(mktemp -d)
    trap 'rm -rf "$at"' EXIT
fi

.venv/bin/python -m build --outdir "$at/dist" . >"$at/build.log" 2>&1 || { tail -20 "$at/build.log" >&2; exit 1; }
began=$SECONDS
.venv/bin/python -m venv "$at/env"
"$at/env/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$at"/dist/*.whl
echo "core: $(du -sm "$at/env" | cut -f1) MB, set up in $((SECONDS - began)) s"

heavy='^(torch|torchvision|timm|executorch|torchao|openvino|nvidia.*|triton|tensorflow.*|keras.*|jax.*) '
if found=$("$at/env/bin/python" -m pip list --disable-pip-version-check 2>/dev/null | grep -Ei "$heavy"); then
    echo "core: the core brings what it must not: $found" >&2
    exit 1
fi

mkdir -p "$at/empty"
cd "$at/empty"
env -u PYTHONPATH "$at/env/bin/python" -I "$here/tests/core_commands.py"
