#!/bin/bash
# Everything that is measured on a GPU, in at most 200 seconds: bash benchmarks/gpu.sh OUT [MASKED_FOLDER [MODEL]]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$here:$here/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
out=$1 masked=${2:-} model=${3:-e2e}
python3 "$here/benchmarks/gpu.py" "$out" --model "$model" ${masked:+--masked "$masked"} \
  --seconds "${SECONDS_LEFT:-185}" --device "${DEVICE:-cuda}" ${TEXTS:+--texts $TEXTS}
