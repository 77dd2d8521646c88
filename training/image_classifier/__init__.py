"""A classifier of pictures: data, network, trainer, and the version that is served."""
