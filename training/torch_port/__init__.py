"""Makes a PyTorch module of an export's graph, layer by layer, and proves that it answers alike."""
