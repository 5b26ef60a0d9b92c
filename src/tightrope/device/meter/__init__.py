"""What it costs: clock, memory, power, the machine itself, and the worker that measures on request."""
