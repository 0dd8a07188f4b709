"""Benchmarks and pictures that only a maintainer makes: `python -m tests.bench NAME`."""
