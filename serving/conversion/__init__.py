"""Makes another format of a model, and proves that it answers alike before it is kept."""
