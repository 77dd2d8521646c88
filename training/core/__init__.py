"""What every trainer is made of: seeds, schedules, steps, checkpoints, logs, processes."""
