"""The servers that a serving benchmark compares, each behind the same small interface."""
