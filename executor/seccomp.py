"""A seccomp filter that a worker puts on itself once torch is loaded: system calls that computing never needs fail.

It works with and without bubblewrap. The filter denies by list, because torch and its libraries use too many calls for
an allow list to stay correct across versions: no new programs, no new processes (threads may start), no sockets, no
tracing, no mounts, namespaces, keys, kernel modules, BPF or io_uring. Only x86-64 has a table; elsewhere `confine`
says that it did nothing.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x00010000
_CLONE, _CLONE3 = 56, 435
_DENIED = {
    "socket": 41,
    "connect": 42,
    "accept": 43,
    "bind": 49,
    "listen": 50,
    "fork": 57,
    "vfork": 58,
    "execve": 59,
    "ptrace": 101,
    "pivot_root": 155,
    "chroot": 161,
    "mount": 165,
    "umount2": 166,
    "init_module": 175,
    "delete_module": 176,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "unshare": 272,
    "accept4": 288,
    "perf_event_open": 298,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "finit_module": 313,
    "bpf": 321,
    "execveat": 322,
    "userfaultfd": 323,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
}
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_OFFSET, _ARCH_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_CALL, _SET_MODE_FILTER, _ALL_THREADS = 317, 1, 1


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def program() -> bytes:
    """The filter as classic BPF, eight bytes an instruction."""
    denied = sorted(_DENIED.values())
    body = [
        _instruction(_LOAD, _ARCH_OFFSET),
        _instruction(_JUMP_EQUAL, _ARCH_X86_64, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER_OFFSET),
        _instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1),
        _instruction(_RETURN, _ERROR | errno.ENOSYS),
        # glibc falls back to clone, whose flags can be read
        _instruction(_JUMP_EQUAL, _CLONE3, 0, 1),
        _instruction(_RETURN, _ERROR | errno.ENOSYS),
    ]
    for number in denied:
        body += [_instruction(_JUMP_EQUAL, number, 0, 1), _instruction(_RETURN, _ERROR | errno.EPERM)]
    body += [
        _instruction(_JUMP_EQUAL, _CLONE, 0, 3),
        _instruction(_LOAD, _FIRST_ARGUMENT_OFFSET),
        _instruction(_JUMP_ANY_BIT, _CLONE_THREAD, 1, 0),
        _instruction(_RETURN, _ERROR | errno.EPERM),
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join(body)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def confine() -> bool:
    """Filter all threads of this process, for good. False where the kernel or the machine does not support it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    code = program()
    buffer = ctypes.create_string_buffer(code, len(code))
    wanted = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return int(libc.syscall(_SECCOMP_CALL, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(wanted))) == 0
