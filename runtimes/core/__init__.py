"""The waist: the few types that everything above and below a runtime agrees on."""
