"""Users: people with an account on this platform."""
