"""Architectures that enter without torch: one file each, named by the model type of config.json."""
