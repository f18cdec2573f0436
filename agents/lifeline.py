"""Ends commands whose hive was killed: one small shell per process holds their groups' numbers.

It owns the *keeper*: a ``sh`` that reads ``+ GROUP`` and ``- GROUP`` lines from a pipe. When
the hive dies, however it dies, the pipe closes and the keeper kills every group that is
still on its list. ``PR_SET_PDEATHSIG`` would end only the first process of a command, and
only together with the thread that started it. It must not know what the commands are.

A command registers itself before it becomes the command, while it holds the pipe's write
end: the keeper cannot see the end of the pipe before it has read the registration, so no
moment of a kill leaves a command behind. What a command moves into a session of its own
(``setsid``) is out of reach, as it is for a terminal's hang-up; a sandbox closes that door.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import threading
from typing import Final

__all__ = ["STARTER", "forget", "open_end", "remember"]

# The list lives in the positional parameters' place, a string: a shell has nothing else that needs no other program.
_KEEPER: Final = """
trap '' HUP INT QUIT TERM PIPE
groups=' '
while read -r sign group; do
  case $sign in
    +) groups="$groups$group " ;;
    -) case $groups in *" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}" ;; esac ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done 2>/dev/null
"""

# Without the trap a keeper that dies at this very moment would take the command with it (SIGPIPE).
STARTER: Final = 'trap "" PIPE; echo "+ $$" 2>/dev/null >&0; trap - PIPE; [ -z "$1" ] || ulimit -Sn "$1"; shift; exec "$@" </dev/null'
"""What a command is started through: ``sh -c STARTER sh SOFT_LIMIT ARGV...`` with :func:`open_end` as standard input."""

_lock = threading.Lock()
_keeper: subprocess.Popen[bytes] | None = None
_end = -1
_groups: set[int] = set()


def open_end() -> int:
    """The pipe's write end, to be a starter's standard input; starts the keeper where none is alive."""
    global _keeper, _end  # noqa: PLW0603  one per process is the point
    with _lock:
        if _keeper is None or _keeper.poll() is not None:
            _close()
            reading, _end = os.pipe()
            with open(reading, "rb", buffering=0) as pipe:  # noqa: PTH123  a descriptor, not a path
                _keeper = subprocess.Popen(
                    ["/bin/sh", "-c", _KEEPER],
                    stdin=pipe,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                    start_new_session=True,
                )
            os.write(_end, b"".join(b"+ %d\n" % group for group in _groups))
        return _end


def remember(group: int) -> None:
    """Note a started group, for another keeper where this one dies."""
    with _lock:
        _groups.add(group)


def forget(group: int) -> None:
    """Take a group off the list, before its leader is reaped and its number can be given to somebody else."""
    with _lock:
        _groups.discard(group)
        if _end >= 0:
            try:
                os.write(_end, b"- %d\n" % group)
            except BrokenPipeError:
                _close()


def _close() -> None:
    global _end  # noqa: PLW0603
    if _end >= 0:
        os.close(_end)
        _end = -1


def _stop() -> None:
    with _lock:
        _close()
        if _keeper is not None:
            _keeper.wait()


def _disown() -> None:
    """In a forked child: drop the pipe, or the keeper would wait for this child's end as well."""
    global _keeper, _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _groups.clear()
    _close()
    if _keeper is not None:
        _keeper.returncode = 0
        _keeper = None


atexit.register(_stop)
os.register_at_fork(after_in_child=_disown)
