"""Events: telling those who wait that something changed, and streams of what did."""
