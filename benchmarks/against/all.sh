#!/bin/sh
# Everything that docs/performance.md shows, one after the other, then the page: about 45 minutes on a quiet machine.
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

[ -d "$reference" ] || "$python" -m benchmarks.reference.bundle "$reference"
"$python" -m benchmarks.against.run --out $results/against.json $common --demo "$demo" --fastembed-python "$fastembed" "$@"
"$python" -m benchmarks.against.cold_start --out $results/cold_start.json $common --demo "$demo" \
  --fastembed-python "$fastembed"
"$python" -m benchmarks.roofline.run --out $results/roofline.json --reference "$reference" --demo "$demo/bundle"
"$python" -m benchmarks.growth.curves --out $results/curves.json $common --demo "$demo/bundle"
"$python" -m benchmarks.growth.images --out $results/growth.json --cache "$cache" --bundle "$demo/bundle"
"$python" -m benchmarks.performance.report --write
