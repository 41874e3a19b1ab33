"""The process that stands between the platform and a VMM, and outlives the platform.

It starts the VMM without any privilege, keeps the end of its console and of its messages within
bounds, and writes down how it ended. It is a shell with a fixed script: nothing smaller is on every
machine. What differs from machine to machine comes as arguments, never as text of the script.

It is root's, because what it writes down must be true whatever the VMM has become: as another user,
the VMM can neither signal it, nor look into it, nor write its files. It is root in the VMM's own view
and groups, without network, with no capability but those by which it makes the VMM a user with
nothing, and behind the same filter of system calls. No byte that comes from the VMM is read by the
shell: `dd` copies it.

Its working folder is ``held``, root's alone:

    pid       the VMM's pid and the holder's: "123 122"
    exit      the VMM's exit status as a shell sees it: 128+n for signal n
    console   what the guest wrote last on its console; console.1 and console.2 are older
    messages  what the VMM itself said last; messages.1 and messages.2 are older

Its standard output is the lock, which it holds as long as it lives, and which the VMM does not have.
When it is killed, the VMM is.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtools.platform.host.drivers.qemu.command import name

# It begins when it is told to: by then it is in its groups. It ends by itself when nobody tells it.
#
# dd copies what comes as it comes: 16 bytes at most at a time, 16384 times at most, so that a file grows
# by 16 to 256 KB before the next one is begun, whatever the VMM does. `Place.prepare` bounds what
# an earlier VMM of the machine left in it.
_SCRIPT = r"""
umask 077
ulimit -c 0
read -r go || exit 1
box=$1; shift

keep() {
  while dd of=$1 bs=16 count=16384 oflag=append conv=notrunc status=none && [ -s $1 ]; do
    mv -f $1.1 $1.2; mv -f $1 $1.1
  done 2>/dev/null
  exec cat >/dev/null
}
keep console <console.pipe &
keep messages <messages.pipe &

{ exec >messages.pipe 2>&1 3>console.pipe; cd "$box" && exec "$@"; } </dev/null &
vmm=$!
echo "$vmm $$" >pid
{ wait $vmm; } 2>/dev/null
echo $? >exit
wait
"""


def unprivileged(uid: int, groups: Sequence[int] = ()) -> list[str]:
    """What to put before a command so that it has no capability and no way to gain one.

    It ends with its holder, unless it has been taken over: then the host ends it (`ending`).
    """
    among = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return [
        "setpriv",
        *(f"--reuid={uid}", f"--regid={uid}", among, "--no-new-privs", "--pdeathsig=KILL"),
        *("--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"),
    ]


def chain(
    machine_id: str, uid: int, groups: Sequence[int], box: str, command: Sequence[str]
) -> list[str]:
    """The argument list of a holder that starts a VMM in the folder ``box``."""
    return [*("sh", "-c", _SCRIPT, name(machine_id), box), *unprivileged(uid, groups), *command]
