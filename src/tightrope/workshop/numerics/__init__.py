"""The arithmetic of the techniques: arrays in, arrays out. Knows nothing of models, files or engines."""
