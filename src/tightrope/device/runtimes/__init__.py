"""Artefact → session, one file an engine, named as its converter in the workshop."""
