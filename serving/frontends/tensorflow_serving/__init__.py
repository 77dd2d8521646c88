"""TensorFlow Serving's API: PredictionService and ModelService over gRPC, and its REST form."""
