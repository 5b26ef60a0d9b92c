"""The workshop: makes bundles. Numpy, onnx and onnxruntime; torch only behind `[torch]`; never needed on a device."""
