"""Techniques, one file each, written once for Network and Graph.

A pass offers a frozen dataclass `Options`, whose fields and defaults are the options of its step in a recipe, and
`apply(model, options, observer) -> model`. The first line of its docstring is what `tightrope recipes` lists.
The arithmetic is in `numerics`; a pass only walks the model and calls it.
"""
