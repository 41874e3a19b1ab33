"""Numbers for Prometheus about the whole installation, for its operator alone."""
