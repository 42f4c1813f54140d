"""Readers of image-text pairs: CSV, TSV, JSON Lines, Parquet, COCO captions, folders and WebDataset shards.

pairs = read_pairs(DataSource("pairs.csv")).pairs
splits = split_pairs(pairs, SplitConfig(val=0.1, test=0.1))
"""

from mmalign.data.errors import (
    ColumnError,
    DataConfigError,
    DataError,
    EmptySourceError,
    RowError,
    SourceError,
    SourceFormatError,
    SourceNotFoundError,
)
from mmalign.data.merge import merge_pairs
from mmalign.data.pair import Origin, Pair, PairSet, RejectedRow
from mmalign.data.read import iter_pairs, read_pairs
from mmalign.data.source import DataSource
from mmalign.data.split import SplitConfig, Splits, joined_concepts, split_of, split_pairs, split_sources

__all__ = [
    "ColumnError",
    "DataConfigError",
    "DataError",
    "DataSource",
    "EmptySourceError",
    "Origin",
    "Pair",
    "PairSet",
    "RejectedRow",
    "RowError",
    "SourceError",
    "SourceFormatError",
    "SourceNotFoundError",
    "SplitConfig",
    "Splits",
    "iter_pairs",
    "joined_concepts",
    "merge_pairs",
    "read_pairs",
    "split_of",
    "split_pairs",
    "split_sources",
]
