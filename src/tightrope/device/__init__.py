"""The device side: the base install. Numpy, tokenizers and the engine in use; never torch, never onnx."""
