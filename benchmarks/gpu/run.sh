#!/usr/bin/env bash
# Everything that a machine with a GPU can prove, in tables: a bundle's parity, invariance, placement and latency in
# float32 and float16; its towers; imported CLIP models beside open_clip (where that is
# installed); training, evaluation and export on the device, and how fast a step is.
# benchmarks/gpu/run.sh BUNDLE OUT [PROVIDER [PARTS]]
# PROVIDER is cuda; with cpu the script itself can be tried anywhere. PARTS are some of "bundle imported training tests".
set -uo pipefail
cd "$(dirname "$0")/../.."
bundle=$1 out=$2 provider=${3:-cuda} parts=${4:-bundle imported training tests}
python=${PYTHON:-python3}
export PYTHONPATH=".:runtime:export${PYTHONPATH:+:$PYTHONPATH}" OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1
mmalign=("$python" -c "from mmalign_runtime.cli import main; main()")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
failed=0

asked() { [[ " $parts " == *" $1 "* ]]; }
section() { printf '\n### %s (%ss)\n\n' "$1" "$SECONDS"; }
# step NAME COMMAND...: its output goes to log.txt and, where it fails, its end to the screen.
step() {
  local name=$1; shift
  printf '== %s\n' "$name" >> "$out/log.txt"
  if ! timeout 240 "$@" > "$work/step.txt" 2>&1; then failed=1; echo "FAILED: $name"; tail -n 15 "$work/step.txt"; fi
  cat "$work/step.txt" >> "$out/log.txt"
}

bundle_part() {
  if [ "$provider" = cuda ]; then
    section "float16"
    step "quantize to float16" "${mmalign[@]}" quantize "$bundle" --precision fp16 --provider cuda \
      --eval benchmarks/demo/demo.toml --budget cosine=0.999 --max-images 300 --out "$work/half"
    [ -d "$work/half" ] && bundle=$work/half
  fi
  for precision in fp32 fp16; do
    [ "$precision" = fp32 ] || ls "$bundle"/onnx/*_fp16.onnx > /dev/null 2>&1 || continue
    section "the bundle in $precision"
    step "verify $precision" bash -c '"$@" > '"$out/verify.json" _ \
      "${mmalign[@]}" verify "$bundle" --provider "$provider" --precision "$precision" --json
    step "bench $precision" "${mmalign[@]}" bench "$bundle" --only stages --provider "$provider" --precision "$precision" \
      --batch-size 1 --batch-size 8 --batch-size 32 --json "$out/bench.json"
    "$python" -m benchmarks.gpu.table "$out" || failed=1
    mv "$out/verify.json" "$out/verify_$precision.json" && mv "$out/bench.json" "$out/bench_$precision.json"
  done
  section "batches of any size"
  "$python" -m benchmarks.gpu.batch_sizes "$bundle" "$out/batch_sizes.json" --provider "$provider" || failed=1
  section "towers"
  "$python" -m benchmarks.gpu.towers "$bundle" "$out/towers.json" --provider "$provider" --seconds 0.4 || failed=1
}

imported_part() {
  section "imported models"
  models=(ViT-B-32-quickgelu ViT-L-14-quickgelu)
  [ "$provider" = cuda ] || models=(ViT-B-32-quickgelu)
  "$python" -m benchmarks.gpu.imported "$work/imported" "$out/imported.json" "${models[@]}" \
    --provider "$provider" 2>> "$out/log.txt" || failed=1
}

training_part() {
  section "training"
  config=(benchmarks/gpu/trained.toml --set "text_tower.tokenizer=$bundle" --set "train.device=$provider")
  [ "$provider" = cuda ] || config+=(--set image_tower.frozen=true --set text_tower.frozen=true --set train.num_workers=0)
  step "train" "${mmalign[@]}" train "${config[@]}" --out "$work/run"
  step "evaluate" "${mmalign[@]}" evaluate "$work/run"
  grep -E "epoch|recall|@1" "$out/log.txt" | tail -n 12
  step "export" "${mmalign[@]}" export "$work/run" --out "$work/trained"
  step "verify what was trained" "${mmalign[@]}" verify "$work/trained" --provider "$provider"
  settings=(off:256 bf16:256 bf16:1024 bf16:2048/256 fp16:256 bf16+compile:256)
  [ "$provider" = cuda ] || settings=(bf16:4 bf16:8/4)
  "$python" -m benchmarks.gpu.training "$bundle" "$out/training.json" "${settings[@]}" --device "$provider" \
    --seconds 4 2>> "$out/log.txt" || failed=1
}

tests_part() {
  section "tests"
  "$python" -m pytest tests/runtime/test_cuda.py tests/mmalign/test_cuda.py tests/runtime/verify tests/runtime/engine \
    -q > "$out/tests.txt" 2>&1 || failed=1
  tail -n 12 "$out/tests.txt"
}

for part in bundle imported training tests; do
  if asked "$part"; then "${part}_part"; fi
done
section "done, $([ $failed = 0 ] && echo all well || echo with failures)"
exit $failed
