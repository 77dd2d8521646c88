"""A classifier of pictures that begins with an export's features."""
