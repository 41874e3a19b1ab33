"""Workers: the connections of those who drive runs."""
