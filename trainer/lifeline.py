"""A process group that never outlives whoever asked for it; as a program, this runs another program in such a group.

    python -I -S trainer/lifeline.py DESCRIPTOR PROGRAM ARGUMENT ...

It has to lead its process group. DESCRIPTOR is the end for reading of a pipe: see `die_with_parent`. PROGRAM keeps it
open, too, so that the kernel ends the group even where this process was killed before its parent. It ends as PROGRAM
does, with its exit code or by the same signal, and heeds no SIGTERM before; 127 and 126 tell, as from a shell, that
there is no such program or that it cannot be run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import sys
import threading


def die_with_parent(lifeline: int) -> None:
    """End this process and all of its process group as soon as the other end of the pipe `lifeline` is closed.

    The parent alone holds that end and never writes, so it closes when the parent ends, by whatever means (and with it
    what the parent may have forked without exec, as multiprocessing's "fork" does). Where the
    system can do it (Linux: F_SETSIG, F_SETOWN with a group) the kernel itself sends SIGKILL, even while C code holds
    the interpreter's lock; a thread does the same elsewhere, and where the parent was gone before we came here.
    PR_SET_PDEATHSIG would be shorter, but it fires when the *thread* that started us ends, and spares our children.
    """

    def wait_for_the_end() -> None:
        while os.read(lifeline, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    if os.getpgrp() != os.getpid():
        raise SystemExit("whoever is to die with its parent must lead its own process group")
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=wait_for_the_end, name="lifeline", daemon=True).start()


def main() -> None:
    lifeline, command = int(sys.argv[1]), sys.argv[2:]
    die_with_parent(lifeline)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it cannot wait for a child
    ignored = (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ)  # by us or by Python, not by the program
    try:
        program = os.posix_spawnp(command[0], command, os.environ, setsigdef=ignored)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
    _, status = os.waitpid(program, 0)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        sys.exit(code)
    end_by(-code)


def end_by(number: int) -> None:
    """End this process by a signal, without a core file of its own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # SIGKILL needs no handler and takes none
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
