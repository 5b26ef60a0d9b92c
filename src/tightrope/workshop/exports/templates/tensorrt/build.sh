#!/bin/sh
# Builds an engine for the GPU of this machine, by the version of TensorRT that is installed: model.plan.
# Made from the bundle @DIGEST@. Its types are the file's own; float32 is not cut to TF32.
set -eu
cd "$(dirname "$0")"
exec trtexec --onnx=model.onnx --saveEngine=model.plan --stronglyTyped --noTF32 \
    --minShapes=@MIN@ \
    --optShapes=@OPT@ \
    --maxShapes=@MAX@ "$@"
