"""Benchmarks: our bundles beside what people run today, and the table in the README that comes of it."""
