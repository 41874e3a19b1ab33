"""Hosts: the machines that run sandboxes, and what they report."""
