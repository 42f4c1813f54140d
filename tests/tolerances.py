"""Every numeric tolerance of the tests, each with the reason why it is not smaller and the reason why it is enough."""

from __future__ import annotations

import msgspec
import PIL
import pytest

OLDER_PILLOW = pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) > 12, reason="the graph is Pillow 12; Pillow 13 resizes a little differently"
)


class Tolerance(msgspec.Struct, frozen=True):
    """A bound on a difference, absolute unless the reason says relative, and why it is this one."""

    bound: float
    reason: str


LOSS_AGAINST_NUMPY = Tolerance(
    2e-6, "float32 sums of a dozen logits of at most 100, against float64: rounding of the last digit or two"
)
LOSS_GRADIENT = Tolerance(
    1e-6, "relative to the largest: float32 sums of a dozen terms against float64; a missing factor is off by all of it"
)
START_COSINE = Tolerance(
    1e-4, "a fit of 12 pairs in float64, applied in float32 through two matrices; another strength moves it by 0.01"
)
JOINED_COSINE = Tolerance(
    2e-5, "components in float64 of moments in float32, against float64; one component more or less is off by 0.1"
)
CHUNKED_LOSS = Tolerance(
    2e-6, "relative to the largest: the same float32 sums by blocks; a block that is left out is off by its share"
)
CHUNKED_GRADIENT = Tolerance(
    1e-5, "relative to the largest: float32 gradients of chunks, added; a chunk left out is off by its share, a tenth"
)
CHUNKED_BFLOAT16 = Tolerance(
    0.1, "relative to the largest: products rounded to 8 bits in other orders; a chunk left out is off by a third"
)
PROCESSES_LOSS = Tolerance(
    1e-4, "50 steps of float32 sums in another order; gradients of one share of four missing are off by 0.01"
)
PROCESSES_NORM = Tolerance(
    1e-2, "relative, 50 steps on: gradients of sums in another order; of a share that is missing by a tenth and more"
)
MERGED = Tolerance(
    1e-5,
    "values around 1, float32 products summed before or after they are applied; without alpha off by 0.05",
)
MERGED_VECTORS = Tolerance(1e-6, "the same on unit vectors of 16 components; adapters left out move them by 0.01")
POOLED = Tolerance(1e-6, "float32 sums of five tokens against float64; a token left out is off by a tenth")
KEPT_TOKENS = Tolerance(2e-3, "relative to the largest: tokens in float16 have eleven bits; another text is far off")
AVERAGED = Tolerance(1e-6, "relative: a dozen float32 interpolations against float64; a step left out is off by 0.1")
UNIT_LENGTH = Tolerance(1e-6, "float32 normalisation of a few dozen components; a missing one is off by far more")
PADDING_INVARIANCE = Tolerance(1e-5, "attention over padding adds zeros, in another order of float32 sums")
LITE0_FEATURES = Tolerance(
    2e-4, "50 float32 convolutions in another order; features reach 5, and a swapped tensor moves them by whole units"
)
LINEAR_MAP_RECOVERY = Tolerance(1e-3, "the weakest ridge shrinks a planted map by 1e-4 of the mean eigenvalue")
PIXEL_ROUNDING = Tolerance(1.01, "levels of 255 from the exact resize: each of its two passes rounds by a half at most")
PIXEL_LEVELS_BILINEAR = Tolerance(2.01, "another library's resize: at a simple ratio values tie, in both of its passes")
CHANCE_SIMULATION = Tolerance(0.01, "24,000 random orders: three standard errors of a share")
CAPTION_DRAW = Tolerance(
    0.03, "share of 3,200 draws: three standard errors; the draws are seeded, so it never flickers"
)
RIDGE_WEIGHT = Tolerance(1e-5, "the fit is float64, its weight is kept as float32; a wrong strength moves it by 0.01")
STANDARDIZED = Tolerance(1e-3, "float32 variance of values near 100 loses two digits")
GRADIENT_NORM = Tolerance(1e-5, "relative: four float32 gradients added one by one, or the gradient of their mean")
CLIPPED_NORM = Tolerance(1e-3, "relative: torch adds 1e-6 to the norm that it divides by, here 0.2 or more")
NORMALIZED = Tolerance(1e-6, "one multiplication and one addition in place of two of each, float32")
ONE_LEVEL = Tolerance(0.02, "one level of 255 after division by the least standard deviation of ImageNet, 0.224")
FEATURES = Tolerance(1e-5, "one tower on the same items in batches of other sizes: float32 sums in another order")
FOLDED = Tolerance(
    1e-5, "relative to the largest: every weight rounded once more; statistics of another layer are off by a tenth"
)
REWRITTEN = Tolerance(5e-6, "attention and LayerNormalization taken apart or fused: float32 sums in another order")
POOLED_EARLY = Tolerance(
    3e-6, "values around 3, products of one row in place of many: sgemm sums in another order; another row is off by 1"
)
RIGHT_SUMS = Tolerance(
    2e-5, "sums of 64 products of bytes are exact, their scales are float32; one wrong level moves a sum by 1e-3"
)
BATCH_MATES = Tolerance(1e-6, "float32 sums in another order; one scale over a batch moves a vector by 1e-3 or more")
ONNX_TOWERS = Tolerance(
    5e-6, "unit vectors of 8 components, float32 sums in another order: measured 5e-7 at most over 40 architectures"
)
INTEGER_COSINE = Tolerance(
    0.9999,
    "the lowest of all plans is 0.99998 on a tiny BERT whose biases are large; one bias doubled costs 0.01",
)
ONE_SITE_COSINE = Tolerance(0.99999, "one product of eight in eight bits: 0.999998 or more")
CONVOLUTION_COSINE = Tolerance(
    0.9999, "three layers in eight bits, a scale a channel: 0.99993; a scale a layer: 0.99988"
)
SAME_FILE_COSINE = Tolerance(
    0.999999, "one eight-bit file, optimised and as written: 1 - 1e-7; with one layer's weights rounded 1 - 6e-5"
)
CLIPPED_COSINE = Tolerance(0.98, "entropy clips noise, which has no outliers to lose: 0.986")
FOUR_BITS_COSINE = Tolerance(0.998, "one of fifteen levels a weight: 0.9986; eight bits give 0.99999")
