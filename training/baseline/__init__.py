"""What AutoML would have made of the data, made here: the bar that a custom model has to clear."""
