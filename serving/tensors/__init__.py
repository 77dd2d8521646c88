"""From the bytes of a message to arrays that a runtime may see."""
