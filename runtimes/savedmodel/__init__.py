"""SavedModels of TensorFlow 1 and 2: AutoML container exports, Keras exports, TF Serving's own."""
