"""Are the data worth a training? Measured faults, and one of three verdicts."""
