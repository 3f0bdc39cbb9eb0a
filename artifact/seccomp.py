"""Owns which system calls a confined process may not make, as a seccomp filter; leaves putting it in force to `kernel`.

A list of what is denied, not of what is allowed: what Python and the C library need differs by version and machine, and
a call that was forgotten would break a deploy on one host in a hundred. What it denies is what Landlock leaves open, or
an old kernel's Landlock lacks: other processes, the network beyond TCP, modes and owners by path, and doors into the
kernel that opening an archive never needs.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

_NEWEST_CALL: Final = 451
"""What comes after is unknown to this list, so it is not there (ENOSYS), as on an older kernel. x86's x32 calls too."""

_CLONE: Final = (56, 220)
_CLONE3: Final = 435
_CLONE_THREAD: Final = 0x10000

DENIED: Final[dict[str, tuple[int | None, int | None]]] = {
    # another process, or another program in this one
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "memfd_create": (319, 279),
    # the network; io_uring can open sockets, pidfd_getfd can take them from others
    "socket": (41, 198),
    "socketpair": (53, 199),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "pidfd_getfd": (438, 438),
    # other processes of the same user: signals, memory, limits, priorities
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "prlimit64": (302, 261),
    "setrlimit": (160, 164),
    "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    # files by path, where Landlock does not look; by descriptor (fchmod) is fine
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "truncate": (76, 45),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # undoing what confines: death with the parent, users, name spaces
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "capset": (126, 91),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # doors into the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "fanotify_init": (300, 262),
    "personality": (135, 92),
    "memfd_secret": (447, 447),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "modify_ldt": (154, None),
}
"""Calls that fail with EPERM, each with its number on x86-64 and on the architectures that came after."""

# machine: (AUDIT_ARCH_* of linux/audit.h, column of the table)
_ARCHITECTURES: Final = {
    "x86_64": (0xC000003E, 0),
    "aarch64": (0xC00000B7, 1),
    "riscv64": (0xC00000F3, 1),
}

# linux/bpf_common.h and linux/filter.h
_LOAD: Final = 0x20
_JUMP_IF_EQUAL: Final = 0x15
_JUMP_IF_AT_LEAST: Final = 0x35
_JUMP_IF_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
# struct seccomp_data of linux/seccomp.h: where its fields stand, on little-endian machines
_CALL_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_FIRST_ARGUMENT: Final = 16
_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000


def program(machine: str | None = None) -> bytes | None:
    """The filter for a machine as `uname -m` names it, by default this one; None where its calls are not known.

    Threads may be started, processes not. `clone3` hides its flags in memory, so it is said not to be there, and the C
    library uses `clone` instead. A call by another architecture's table ends the process.
    """
    known = _ARCHITECTURES.get(os.uname().machine if machine is None else machine)
    if known is None:
        return None
    architecture, column = known
    denied = sorted(number for numbers in DENIED.values() if (number := numbers[column]) is not None)
    instructions = [
        _instruction(_LOAD, _ARCHITECTURE),
        *_unless(_JUMP_IF_EQUAL, architecture, _KILL_PROCESS),
        _instruction(_LOAD, _CALL_NUMBER),
        *_if(_JUMP_IF_AT_LEAST, _NEWEST_CALL + 1, _ERRNO | errno.ENOSYS),
        *_if(_JUMP_IF_EQUAL, _CLONE3, _ERRNO | errno.ENOSYS),
        *(line for number in denied for line in _if(_JUMP_IF_EQUAL, number, _ERRNO | errno.EPERM)),
        _instruction(_JUMP_IF_EQUAL, _CLONE[column], if_true=1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        *_if(_JUMP_IF_ANY_BIT, _CLONE_THREAD, _ALLOW),
        _instruction(_RETURN, _ERRNO | errno.EPERM),
    ]
    return b"".join(instructions)


def _if(test: int, value: int, verdict: int) -> tuple[bytes, bytes]:
    return _instruction(test, value, if_false=1), _instruction(_RETURN, verdict)


def _unless(test: int, value: int, verdict: int) -> tuple[bytes, bytes]:
    return _instruction(test, value, if_true=1), _instruction(_RETURN, verdict)


def _instruction(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    """One `struct sock_filter`; the jumps count the instructions to skip."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
