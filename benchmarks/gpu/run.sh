#!/usr/bin/env bash
# Everything that a machine with a GPU can prove, in one table: parity, invariance, placement, float32, latency.
# benchmarks/gpu/run.sh BUNDLE OUT [PROVIDER]    PROVIDER is cuda; with cpu the script itself can be tried anywhere.
set -uo pipefail
cd "$(dirname "$0")/../.."
bundle=$1 out=$2 provider=${3:-cuda}
python=${PYTHON:-python3}
mmalign=("$python" -c 'from mmalign_runtime.cli import main; main()')
mkdir -p "$out"

"${mmalign[@]}" verify "$bundle" --provider "$provider" --json > "$out/verify.json"; verified=$?
"${mmalign[@]}" bench "$bundle" --only stages --provider "$provider" --batch-size 1 --batch-size 8 --batch-size 32 --json "$out/bench.json" > /dev/null
"$python" -m pytest tests/runtime/verify tests/runtime/engine -q -rs > "$out/tests.txt" 2>&1; tested=$?
tail -n 5 "$out/tests.txt"
"$python" -m benchmarks.gpu.table "$out" || exit
exit $((verified || tested))
