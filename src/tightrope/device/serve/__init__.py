"""Bundles behind a service: a queue, batches, deadlines, a memory law, versions that replace each other, HTTP on top.

It serves inside a byte budget and refuses what does not fit; it never trains, converts or fetches a model.
"""
