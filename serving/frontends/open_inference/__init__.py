"""The Open Inference Protocol v2 over gRPC and HTTP, as Triton's clients speak it."""
