"""Owns the system calls that confine a process: what Python lacks, and the seam where tests stand in for old kernels.

Which to call, in which order, and what it means when one is not there, is left to `sandbox`.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final, Protocol

# The same on all architectures: calls that came after Linux 5.0 have one number.
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_ADD_RULE: Final = 445
_LANDLOCK_RESTRICT_SELF: Final = 446
_LANDLOCK_CREATE_RULESET_VERSION: Final = 1
_LANDLOCK_RULE_PATH_BENEATH: Final = 1

_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_CAPABILITY_VERSION_3: Final = 0x20080522


class Kernel(Protocol):
    """Calls by which a process gives up rights; all raise OSError. They concern the calling thread alone."""

    def prctl(self, option: int, argument: int) -> int:
        """Call `prctl` with one argument."""

    def capabilities(self) -> int:
        """The effective and permitted capabilities, as one set of bits."""

    def drop_capabilities(self) -> None:
        """Give up all of them."""

    def landlock_version(self) -> int:
        """The version of Landlock's interface, from 1; ENOSYS: not built in, EOPNOTSUPP: not switched on."""

    def landlock_ruleset(self, *, files: int, network: int, scopes: int) -> int:
        """Make a ruleset that denies these rights; returns its descriptor."""

    def landlock_allow(self, ruleset: int, directory: int, rights: int) -> None:
        """Allow rights below the directory that a descriptor names."""

    def landlock_restrict(self, ruleset: int) -> None:
        """Put the ruleset in force, for good."""

    def filter_system_calls(self, program: bytes) -> None:
        """Put a seccomp filter in force, for good; EINVAL: the kernel has none."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    # The kernel's is packed, which only drops the padding behind the last field.
    _fields_ = (("rights", ctypes.c_uint64), ("directory", ctypes.c_int32))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityWord(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _FilterProgram(ctypes.Structure):
    _fields_ = (("instruction_count", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class LinuxKernel:
    """The kernel that we run on."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long

    def prctl(self, option: int, argument: int) -> int:
        """See `Kernel.prctl`."""
        return self._prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0))

    def capabilities(self) -> int:
        """See `Kernel.capabilities`."""
        words = (_CapabilityWord * 2)()
        _checked(self._libc.capget(ctypes.byref(_CapabilityHeader(_CAPABILITY_VERSION_3, 0)), words))
        low, high = (word.effective | word.permitted for word in words)
        return int(high << 32 | low)

    def drop_capabilities(self) -> None:
        """See `Kernel.drop_capabilities`."""
        none = (_CapabilityWord * 2)()
        _checked(self._libc.capset(ctypes.byref(_CapabilityHeader(_CAPABILITY_VERSION_3, 0)), none))

    def landlock_version(self) -> int:
        """See `Kernel.landlock_version`."""
        return self._syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)

    def landlock_ruleset(self, *, files: int, network: int, scopes: int) -> int:
        """See `Kernel.landlock_ruleset`."""
        ruleset = _Ruleset(files, network, scopes)
        # A kernel knows a structure up to some field, and takes a longer one if the rest is zeros (E2BIG otherwise).
        return self._syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(ruleset), ctypes.sizeof(ruleset), 0)

    def landlock_allow(self, ruleset: int, directory: int, rights: int) -> None:
        """See `Kernel.landlock_allow`."""
        rule = _PathBeneath(rights, directory)
        self._syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, ctypes.byref(rule), 0)

    def landlock_restrict(self, ruleset: int) -> None:
        """See `Kernel.landlock_restrict`."""
        self._syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)

    def filter_system_calls(self, program: bytes) -> None:
        """See `Kernel.filter_system_calls`."""
        filter_program = _FilterProgram(len(program) // 8, program)
        self._prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(filter_program))

    def _prctl(self, option: int, second: Any, third: Any) -> int:
        return _checked(self._libc.prctl(option, second, third, ctypes.c_ulong(0), ctypes.c_ulong(0)))

    def _syscall(self, number: int, *arguments: Any) -> int:
        # `syscall` is variadic: a plain int would be passed as 32 bits, and the upper half be left to chance.
        wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
        return _checked(self._libc.syscall(ctypes.c_long(number), *wide))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


LINUX: Final[Kernel] = LinuxKernel()
