"""The peers: ours beside what people run today, in one interleaved run.

    python -m benchmarks.peers                      # environments, models, the run, its JSON
    python -m benchmarks.peers --bundle mine=my.bundle --rounds 4

Every candidate is a process of its own in an environment of its own. All of them stay open on one core, and every round
asks each of them the same questions in a shuffled order, so that a change of clock or a busy neighbour meets all alike.
A peer is taken at its best: its best published recipe, its best batching as found by trying.
"""
