"""Pausing and resuming a sandbox again and again, and looking whether every byte is what it was.

keeper.py   runs in the sandbox: holds bytes that change each cycle, in memory and in files
known.py    what must be found there, known without asking
saved.py    the files of a paused sandbox, block by block
cycles.py   the cycles themselves
"""
