"""What it costs: clock, memory, power, and the worker that measures on request."""
