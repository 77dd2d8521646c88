"""Search for hyperparameters that begins with what earlier runs have shown."""
