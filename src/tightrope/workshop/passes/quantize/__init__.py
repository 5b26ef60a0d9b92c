"""Fewer bits for weights, inputs and tables."""
