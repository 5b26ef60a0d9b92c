"""Engines side by side: the same model converted for each, held against the original, and measured."""
