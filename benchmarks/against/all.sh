#!/bin/sh
# Everything that docs/performance.md shows, one after the other, then the page: about an hour on a quiet machine.
# PYTHON and FASTEMBED_PYTHON name the two environments; arguments go to the comparison.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-.against/torch/bin/python}
fastembed=${FASTEMBED_PYTHON:-.against/fastembed/bin/python}
cache=${CACHE:-.cache/against}
demo=${DEMO:-demo}
reference=${REFERENCE:-$cache/reference_bundle}
results=benchmarks/performance/results
common="--cache $cache --reference $reference"

# Eight bits for both, unless they are there. Recall of random weights says nothing, so the reference's budget has none.
quantize() {
  [ -f "$1/quantization.json" ] || "$(dirname "$python")/mmalign" quantize "$1" --calibration benchmarks/demo/demo.toml \
    --eval benchmarks/demo/demo.toml --budget "$2"
}

[ -d "$reference" ] || "$python" -m benchmarks.reference.bundle "$reference"
quantize "$reference" recall@1=100,cosine=0.99
quantize "$demo/bundle" recall@1=0.5
"$python" -m benchmarks.against.run --out $results/against.json $common --demo "$demo" --fastembed-python "$fastembed" \
  --ours fp32,int8,int8@openvino,bf16@openvino "$@"
"$python" -m benchmarks.against.cold_start --out $results/cold_start.json $common --demo "$demo" \
  --fastembed-python "$fastembed"
"$python" -m benchmarks.against.single --out $results/single.json --demo "$demo" --reference "$reference"
"$python" -m benchmarks.performance.report --write
