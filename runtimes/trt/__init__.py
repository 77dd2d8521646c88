"""TensorRT engines (``model.plan``) on NVIDIA GPUs, and building them of ONNX models."""
