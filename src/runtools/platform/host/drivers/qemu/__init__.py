"""Machines under QEMU: hardware virtualisation where it really works, else emulation."""
