"""Image files in, a task's answer out: a Model around a Model, and the pure parts of it."""
