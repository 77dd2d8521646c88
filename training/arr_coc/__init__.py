"""ARR-COC: given a picture and a query, which patches matter, and how many tokens each gets."""
