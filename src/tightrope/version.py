"""This release, for who must not import what lies above."""

__version__ = "0.1.0"
