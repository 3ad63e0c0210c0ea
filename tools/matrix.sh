#!/usr/bin/env bash
# matrix.sh BPY_VERSION PYTHON -- run tests/blender on another Blender, with the backend in the project's own environment.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1 python=$2
environment=.venv-bpy-$version
if [ ! -f "$environment/.ready" ]; then
  "$python" -m venv --clear "$environment"
  "$environment/bin/python" -m pip install --quiet "bpy==$version" pytest pytest-timeout numpy pillow
  touch "$environment/.ready"
fi
VIEWPORT_DIFFUSION_PYTHON=$PWD/.venv/bin/python "$environment/bin/python" -m pytest tests/blender
