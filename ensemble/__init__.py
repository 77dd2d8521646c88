"""Models made of Models; they know names and a Resolver, never a runtime."""
