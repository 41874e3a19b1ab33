"""Killing a host at random and at named points, and looking whether all is well afterwards.

house.py    a host process that can be killed and started again
model.py    what a client that acts on it knows must be so
saga.py     random acts while the host is killed
look.py     what really is so: reports, folders, processes
"""
