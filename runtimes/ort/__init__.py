"""ONNX models on ONNX Runtime: CPU by default, CUDA and TensorRT by option."""
