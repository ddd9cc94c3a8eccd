"""Becomes another program that cannot outlive its parent and, as root, may run as somebody else.

Run as a file by `app.processes.spawn`, with the standard library only, so that it costs milliseconds:
`python -I -S shim.py SPEC PROGRAM ARGUMENT...`. SPEC is JSON: `parent` (pid that must be alive), `death_signal` (sent to the
program when the parent dies), `niceness`, `account` (null, or `uid`, `gid`, `capabilities`), and `watch` (true where the kernel
cannot send that signal: this process stays, and polls).

The signal is `prctl(PR_SET_PDEATHSIG)`. A change of user clears it, so it is set last (man 2 prctl).
A kept capability is made ambient, the only kind an ordinary program inherits through exec (man 7 capabilities).
"""

import ctypes
import json
import os
import signal
import sys
import time

_PR_SET_PDEATHSIG, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 28, 47, 2
_SECBIT_NO_SETUID_FIXUP = 4
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_POLL_SECONDS = 0.25


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def drop_root(uid: int, gid: int, capabilities: list[int]) -> None:
    """Become `uid`, keeping nothing of root but the numbered `capabilities`."""
    if capabilities:  # without this bit access(2), which initdb asks, ignores capabilities of an ordinary user
        _call("prctl", _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if not capabilities:
        return
    mask = sum(1 << number for number in capabilities)
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    _call("capset", header, (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0))
    for number in capabilities:
        _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)


def watch(child: int, parent: int, death_signal: int) -> int:
    """Wait for `child`, pass signals on, and end it when `parent` is gone; returns its exit status as a shell would."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    is_told = False
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code
        if os.getppid() != parent and not is_told:
            is_told = True
            os.kill(child, death_signal)
        time.sleep(_POLL_SECONDS)


def main() -> None:
    """Read SPEC, prepare this process and become PROGRAM."""
    spec = json.loads(sys.argv[1])
    command = sys.argv[2:]
    try:
        if spec["niceness"]:
            os.nice(spec["niceness"])
        if spec["watch"] and (child := os.fork()):
            sys.exit(watch(child, spec["parent"], spec["death_signal"]))
        if account := spec["account"]:
            drop_root(account["uid"], account["gid"], account["capabilities"])
        if not spec["watch"]:
            _call("prctl", _PR_SET_PDEATHSIG, spec["death_signal"], 0, 0, 0)
            if os.getppid() != spec["parent"]:  # it died before the line above
                sys.exit(1)
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error}")


if __name__ == "__main__":
    main()
