"""Benchmarks: `just bench NAME`."""
