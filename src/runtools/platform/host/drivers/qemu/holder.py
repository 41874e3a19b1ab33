"""The process that stands between the platform and a VMM, and outlives the platform.

It starts the VMM without any privilege, keeps the end of its console and of its messages within
bounds, and writes down how it ended. It is a shell with a fixed script: nothing smaller is on every
machine. What differs from machine to machine comes as arguments, never as text of the script.

Its working folder (and the VMM's) is the machine's *box*, the only folder they can write:

    pid       the VMM's pid and start time, and the holder's pid: "123 456789 122"
    exit      the VMM's exit status as a shell sees it: 128+n for signal n
    console   what the guest wrote last on its console; console.1 and console.2 are older
    messages  what the VMM itself said last; messages.1 is older
"""

from __future__ import annotations

from collections.abc import Sequence

from runtools.platform.host.drivers.qemu.command import name

# dd copies a console as it comes: 16 bytes at most at a time, 16384 times at most, so that a file grows
# by 16 to 256 KB before the next one is begun, whatever the guest does. `Place.prepare` bounds what
# an earlier VMM of the machine left in it.
_SCRIPT = r"""
umask 077
ulimit -c 0
exec >/dev/null 2>>messages

keep_console() {
  while dd of=console bs=16 count=16384 oflag=append conv=notrunc status=none && [ -s console ]; do
    mv -f console.1 console.2; mv -f console console.1
  done 2>/dev/null
  exec cat
}
keep_console <console.pipe &

{ echo 500 >/proc/self/oom_score_adj; exec "$@"; } 2>messages.pipe 3>console.pipe &
vmm=$!
read -r stat <"/proc/$vmm/stat"
set -- ${stat##*)}
echo "$vmm ${20} $$" >pid

lines=0
while IFS= read -r line; do
  lines=$((lines + 1))
  if [ $lines -gt 200 ]; then mv -f messages messages.1; lines=1; fi
  printf '%s\n' "$line" >>messages
done <messages.pipe
{ wait $vmm; } 2>/dev/null
echo $? >exit
wait
"""


def unprivileged(uid: int, groups: Sequence[int] = ()) -> list[str]:
    """What to put before a command so that it has no capability, no way to gain one and no network.

    The guest's tap is handed to a VMM as an open file, which works from an empty network namespace.
    """
    among = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return [
        *("unshare", "--net", "--"),
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", among, "--no-new-privs"),
        *("--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"),
    ]


def chain(machine_id: str, uid: int, groups: Sequence[int], command: Sequence[str]) -> list[str]:
    """The argument list that starts a VMM under a holder of its own, both as the machine's user."""
    return [*unprivileged(uid, groups), "sh", "-c", _SCRIPT, name(machine_id), *command]
