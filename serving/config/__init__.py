"""Configuration: read once at the edge, frozen, an unknown key is an error."""
