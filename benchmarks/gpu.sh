#!/bin/bash
# Everything that is measured on a GPU, in at most 200 seconds: bash benchmarks/gpu.sh OUT [MASKED_FOLDER [MODEL]]
# If pytest is installed, the GPU tests run first, for about a minute; their output goes to OUT/tests.txt.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$here:$here/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
out=${1:?usage: bash benchmarks/gpu.sh OUT [MASKED_FOLDER [MODEL]]} masked=${2:-} model=${3:-e2e}
mkdir -p "$out"
if python3 -c "import pytest" 2>/dev/null; then
  (cd "$here" && timeout 180 python3 -m pytest -o addopts= --import-mode=importlib -p no:cacheprovider -q -m gpu tests/test_gpu.py) \
    2>&1 | tee "$out/tests.txt" || echo "not all tests passed"
fi
python3 "$here/benchmarks/gpu.py" "$out" --model "$model" ${masked:+--masked "$masked"} \
  --seconds "${SECONDS_LEFT:-185}" --device "${DEVICE:-cuda}" ${TEXTS:+--texts $TEXTS}
