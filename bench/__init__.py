"""Benchmarks: the platform beside a floor measured in the same run. Nothing here is asserted."""
