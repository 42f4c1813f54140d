"""Measuring a bundle on the machine at hand, a module for each part.

stages: where the time of a batch goes. bulk: items a second, many at a time. closed_loop: what callers see who wait for
each answer. cold_start, memory: what a process costs. quiet: whether the machine let any of it be measured. compare:
engines and precisions. Nothing is imported here: a fresh process that `cold_start` times imports this too.
"""
