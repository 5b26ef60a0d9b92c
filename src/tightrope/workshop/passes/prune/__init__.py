"""Fewer parts: what can be cut away whole."""
