"""Columns of a table to features: one specification, run by NumPy and by ONNX Runtime alike."""
