"""Image classifiers: what they lose in eight bits on each engine, and what structural re-parameterisation gains."""
