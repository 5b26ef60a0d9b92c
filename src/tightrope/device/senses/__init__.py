"""The world → arrays. Text so far."""
