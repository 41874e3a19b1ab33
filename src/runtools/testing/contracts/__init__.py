"""What every implementation of a port must do: suites that a test module makes concrete."""
