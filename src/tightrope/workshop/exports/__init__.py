"""Projects of other worlds around a bundle's model: what an app's own tools build. Nothing here runs a model."""
