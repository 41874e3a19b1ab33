"""Drivers: what makes machines. Each stands in a folder of its own and holds to `core.ports.driver`."""
