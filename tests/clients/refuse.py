"""Runs a command that may not make some system calls, as a container's seccomp profile would have
it: refuse.py SYSCALL… -- COMMAND…. The calls fail with EPERM."""

import ctypes
import errno
import os
import platform
import struct
import sys

NUMBERS = {
    "x86_64": {"unshare": 272},
    "aarch64": {"unshare": 97},
}[platform.machine()] | {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "close_range": 436,
}

# linux/filter.h, linux/seccomp.h, linux/prctl.h.
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def main():
    separator = sys.argv.index("--")
    refused = [NUMBERS[name] for name in sys.argv[1:separator]]
    command = sys.argv[separator + 1 :]

    # struct seccomp_data begins with the number of the system call.
    instructions = [(LOAD_WORD, 0, 0, 0)]
    for left, number in zip(range(len(refused), 0, -1), refused):
        instructions.append((JUMP_IF_EQUAL, left, 0, number))
    instructions.append((RETURN, 0, 0, SECCOMP_RET_ALLOW))
    instructions.append((RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM))
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    program = Program(len(instructions), code)

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if prctl(*arguments) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    os.execvp(command[0], command)


main()
