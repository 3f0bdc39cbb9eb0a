"""Runs a command under a filter of system calls, as on an older kernel or within a systemd unit.

under_filter.py '{"deny": {"444": "ENOSYS"}}' COMMAND...
under_filter.py '{"deny_prctl": {"22": "EINVAL"}}' COMMAND...
under_filter.py '{"allow": ["read", "write"]}' COMMAND...    all others: EPERM; by libseccomp, as systemd does it
"""

import ctypes
import errno
import json
import os
import struct
import sys

from artifact.kernel import LINUX

PR_SET_NO_NEW_PRIVS = 38
PRCTL = {"x86_64": 157}.get(os.uname().machine, 167)
ALLOW = 0x7FFF0000
ERRNO = 0x00050000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
CALL_NUMBER, FIRST_ARGUMENT = 0, 16


def instruction(code: int, value: int, *, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, 0, if_false, value)


def program(deny: dict[str, str], deny_prctl: dict[str, str]) -> bytes:
    lines = [instruction(LOAD, CALL_NUMBER)]
    for number, name in deny.items():
        verdict = ERRNO | getattr(errno, name)
        lines += [instruction(JUMP_IF_EQUAL, int(number), if_false=1), instruction(RETURN, verdict)]
    lines += [instruction(JUMP_IF_EQUAL, PRCTL, if_false=1 + 2 * len(deny_prctl)), instruction(LOAD, FIRST_ARGUMENT)]
    for option, name in deny_prctl.items():
        verdict = ERRNO | getattr(errno, name)
        lines += [instruction(JUMP_IF_EQUAL, int(option), if_false=1), instruction(RETURN, verdict)]
    return b"".join([*lines, instruction(RETURN, ALLOW)])


def allow_only(names: list[str]) -> None:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(ERRNO | errno.EPERM)))
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # others belong to other architectures
            assert library.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) == 0, name
    assert library.seccomp_load(context) == 0


def main() -> None:
    rules, command = json.loads(sys.argv[1]), sys.argv[2:]
    LINUX.prctl(PR_SET_NO_NEW_PRIVS, 1)
    if "allow" in rules:
        allow_only(rules["allow"])
    else:
        LINUX.filter_system_calls(program(rules.get("deny", {}), rules.get("deny_prctl", {})))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
