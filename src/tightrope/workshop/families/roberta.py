"""RoBERTa (Liu et al. 2019, arXiv:1907.11692): encoders and cross-encoders of model type `roberta`."""

from tightrope.workshop import checkpoint, encoder, layouts

layout = layouts.roberta_names
weights = checkpoint.picker(layout, prefix="roberta.")
linears, tables, lower = encoder.verbs(layout)
