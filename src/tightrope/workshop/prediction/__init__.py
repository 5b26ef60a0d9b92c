"""How long a model will take on a device that was probed, or is only described: always a prediction, labelled so.

A probe times small models of its own on each engine; a line through those times, over what a model has to do, gives
the rates of the device. Nothing here knows the model that is asked about.
"""
