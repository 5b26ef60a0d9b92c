"""Is it still right? Parity asks number by number, quality asks the task."""
