"""Training of the models that replace an export; imports runtimes, never serving."""
