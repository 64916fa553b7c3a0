#!/usr/bin/env bash
# Builds dist/: the wheel and the sdist of nestling.__version__, which the changelog has to know, checked. Uploads nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(.venv/bin/python -c 'import nestling; print(nestling.__version__)')
if ! grep -qE "^## ${version//./\\.}( |$)" CHANGELOG.md; then
    echo "release: CHANGELOG.md has no entry '## $version'; nestling/__init__.py says that this is $version." >&2
    exit 1
fi
if [ -n "$(git status --porcelain)" ]; then
    echo "release: commit or stash first, so that what is built can be built again: $(git status --porcelain | head -3)" >&2
    exit 1
fi

rm -rf dist
.venv/bin/python -m build --outdir dist . >dist.log 2>&1 || { tail -20 dist.log >&2; exit 1; }
rm dist.log
for file in "dist/nestling-$version-py3-none-any.whl" "dist/nestling-$version.tar.gz"; do
    [ -f "$file" ] || { echo "release: $file was not built." >&2; exit 1; }
done
.venv/bin/twine check --strict dist/*
ls -l dist
