"""BERT (Devlin et al. 2019, arXiv:1810.04805): encoders and cross-encoders of model type `bert`."""

from collections.abc import Mapping
from typing import Any

from tightrope.workshop import checkpoint, encoder, layouts
from tightrope.workshop.layouts import Layout


def layout(config: Mapping[str, Any]) -> Layout:
    """What a BERT checkpoint calls its parts; a classifier reads the pooled first token."""
    head = (("pooler.dense", "tanh"), ("classifier", "identity"))
    return layouts.bert_names(config, first_position=0, head=head)


weights = checkpoint.picker(layout, prefix="bert.")
linears, tables, lower = encoder.verbs(layout)
