"""The only loop: which recipe fits the budget? It calls the verbs of the other rooms and nothing calls it but the roof."""
