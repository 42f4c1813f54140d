"""Fewer bits within a budget: quantize a bundle's towers, keep the fastest that loses little, prove and add it."""
