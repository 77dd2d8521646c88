"""Losses, each as a function of logits or embeddings; the mean over the batch."""
