"""Makes docs/performance.md and its chart from what the comparison measured."""
