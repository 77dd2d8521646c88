"""TFLite models on LiteRT: AutoML Vision Edge exports, quantised ones, Edge TPU delegates."""
