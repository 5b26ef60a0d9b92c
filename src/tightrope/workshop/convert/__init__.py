"""Model → artefact, one file an engine, named as its runtime on the device.

A converter offers `convert(model) -> Converted`. It turns the annotations into its engine's best form and
refuses, with the layer's name, what the engine cannot express.
"""
