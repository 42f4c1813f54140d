"""Makes docs/performance.md and its charts from what the comparison, roofline and growth scripts measured."""
