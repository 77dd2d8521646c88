"""TensorFlow Lite models on LiteRT: AutoML Vision Edge exports, quantised or not, and the Edge TPU."""
