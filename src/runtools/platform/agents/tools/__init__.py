"""What a run's model can call."""
