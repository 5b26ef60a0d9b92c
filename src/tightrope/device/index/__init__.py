"""Nearest neighbours on a device: eight-bit vectors mapped from disk, texts and metadata in SQLite.

The store is the truth, and durable when a call returns; the file that is scanned can be made from it again. An index
belongs to one model, by the digest of its bundle. Nothing here knows of servers, and no model is opened here.
"""
