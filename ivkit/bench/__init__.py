"""Benchmarks: `python -m ivkit.bench NAME`, one module a name."""
