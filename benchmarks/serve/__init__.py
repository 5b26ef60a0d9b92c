"""The server under load: beside its peers in one run, and by itself where they have nothing to compare.

`python -m benchmarks.serve` measures everything; `--only NAME` one part. Load comes from another process on another
core, so that the server is what is measured and not the one who asks.
"""
