"""Pictures with boxes: read from the formats that people have, checked, and split."""
