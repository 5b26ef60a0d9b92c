"""Where a model comes from: one file a kind of source. Each ends in a folder or file on disk, and reads only data.

Pickled weights are never loaded, and nothing that comes with a model is imported or run.
"""
