"""XLM-RoBERTa (Conneau et al. 2020, arXiv:1911.02116): encoders and cross-encoders of model type `xlm-roberta`.

Its classes in transformers bear the prefix of RoBERTa.
"""

from tightrope.workshop import checkpoint, encoder, layouts

layout = layouts.roberta_names
weights = checkpoint.picker(layout, prefix="roberta.")
linears, tables, lower = encoder.verbs(layout)
