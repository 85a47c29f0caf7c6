"""What an update changes: weights, their EMA and moments, and the schedules it follows."""
