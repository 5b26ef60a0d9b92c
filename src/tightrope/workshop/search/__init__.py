"""The only loop: which recipe fits the budget? It calls the verbs of the other rooms; only the roof calls it."""
