"""What a hostile guest does to be felt outside of it: endless work on each thing that could be shared."""

from __future__ import annotations

_MEMORY = """
import os
while True:
    if os.fork() == 0:
        held = []
        while True:
            held.append(os.urandom(1 << 20) * 8)
    os.wait()
"""

_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""

_JOURNAL = """
import os
n = 0
while True:
    try:
        with open(f'/run/runtools/journal/filler-{n % 50}', 'wb') as file:
            file.write(os.urandom(1 << 20) * 16)
    except OSError:
        pass
    n += 1
"""

_RINGS = """
import os, socket, threading
def packets():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        try:
            sock.sendto(b'x', ('10.0.2.2', 9))
        except OSError:
            pass
def blocks():
    fd = os.open('/dev/vda', os.O_RDONLY)
    while True:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for at in range(0, 64 << 20, 1 << 20):
            os.pread(fd, 512, at)
for work in (packets, packets, blocks):
    threading.Thread(target=work).start()
"""

_NAMES = """
import os
os.makedirs('/tmp/names', exist_ok=True)
n = 0
while True:
    for _ in range(1000):
        os.path.exists(f'/tmp/names/absent-{n}')
        n += 1
    try:
        os.mkdir(f'/tmp/names/{n}')
    except OSError:
        pass
"""

_REFUSED = """
import os, socket, threading
def refused():
    n = 0
    while True:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.sendto(b'x', ('10.9.9.9', 1 + n % 60000))
        except OSError:
            pass
        sock.close()
        n += 1
def full():
    while True:
        try:
            with open('/workspace/full', 'wb') as file:
                while True:
                    file.write(os.urandom(1 << 20))
                    os.fsync(file.fileno())
        except OSError:
            pass
for work in (refused, full):
    threading.Thread(target=work).start()
"""


def _python(program: str) -> list[str]:
    return ["python3", "-c", program]


ATTACKS: dict[str, list[str]] = {
    "memory": _python(_MEMORY),
    "disk": [
        "sh",
        "-c",
        "while :; do cat /dev/urandom > /workspace/full; sync; rm /workspace/full; done",
    ],
    "processes": _python(_BOMB),
    "console": ["sh", "-c", "while :; do yes the console is full > /dev/console; done"],
    "journal": _python(_JOURNAL),
    "rings": _python(_RINGS),
    "names": _python(_NAMES),
    "egress log": _python(_REFUSED),
}
"""By what they fill: a command that never ends by itself."""
