#!/usr/bin/env bash
# Everything that a machine with a GPU can prove, in two tables: parity, invariance, placement, end to end; and the
# towers in float32 and float16, run plainly, bound and as graphs, with their share of the device's peak.
# benchmarks/gpu/run.sh BUNDLE OUT [PROVIDER]    PROVIDER is cuda; with cpu the script itself can be tried anywhere.
set -uo pipefail
cd "$(dirname "$0")/../.."
bundle=$1 out=$2 provider=${3:-cuda}
python=${PYTHON:-python3}
export PYTHONPATH=".:runtime:export${PYTHONPATH:+:$PYTHONPATH}"
mmalign=("$python" -c 'from mmalign_runtime.cli import main; main()')
mkdir -p "$out"

failed=0
for precision in fp32 fp16; do
  [ "$precision" = fp32 ] || ls "$bundle"/onnx/*_fp16.onnx > /dev/null 2>&1 || continue
  "${mmalign[@]}" verify "$bundle" --provider "$provider" --precision "$precision" --json > "$out/verify.json" || failed=1
  "${mmalign[@]}" bench "$bundle" --only stages --provider "$provider" --precision "$precision" --batch-size 1 \
    --batch-size 8 --batch-size 32 --json "$out/bench.json" > /dev/null || failed=1
  "$python" -m benchmarks.gpu.table "$out" || failed=1
  mv "$out/verify.json" "$out/verify_$precision.json" && mv "$out/bench.json" "$out/bench_$precision.json"
  echo
done
"$python" -m benchmarks.gpu.towers "$bundle" "$out/towers.json" --provider "$provider" || failed=1
"$python" -m pytest tests/runtime/verify tests/runtime/engine -q -rs > "$out/tests.txt" 2>&1 || failed=1
tail -n 5 "$out/tests.txt"
exit $failed
