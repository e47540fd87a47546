"""The process that becomes a sandbox: started alone by ``sandbox.run``, with the program on its input.

It makes the namespaces, becomes the parent of their first process, and that one builds an empty file system, moves into
it, gives up what it may do, and becomes the interpreter of the program. Ending the first process ends all others.
The exit code is the program's. What it cannot say without being taken for the program's goes into a pipe that the
program does not have: that the sandbox is made, that it could not be, that the time was up. Only the standard library
is used.
"""

import ctypes
import os
import resource
import signal
import sys
import time

MOUNTS = 0x00020000
NAMESPACES = MOUNTS | 0x10000000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # user, pid, net, ipc, host name
READ_ONLY, NO_SUID, NO_DEV, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
KEPT = {1: 1, 2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}  # mount flags as statvfs and mount name them
DETACH, DIE_WITH_PARENT, DUMPABLE, NO_NEW_PRIVILEGES = 2, 1, 4, 38
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}  # system call
NOBODY, INSIDE = 65534, 1000
MADE, NOT_MADE, TIMED_OUT = b"m", b"n", b"t"  # what the pipe says
PYTHON = os.path.realpath(sys.executable)
PATHS = ("/usr", "/lib", "/lib64", "/lib32", "/bin", sys.base_prefix)
ROOT = "/tmp"  # covered by the new file system, inside the mount namespace only

libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run the program on the input and return the exit code."""
    seconds, limits, pipe = float(sys.argv[1]), list(map(int, sys.argv[2:5])), int(sys.argv[5])
    program = sys.stdin.buffer.read()
    if os.geteuid() == 0:
        # Root builds as root, since nobody may not reach the interpreter, and becomes nobody: for root's processes the
        # limit on their number does not hold.
        _call(libc.unshare, MOUNTS)
        _build()
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        _call(libc.prctl, DUMPABLE, 1, 0, 0, 0)  # or /proc/self would stay root's
        _unshare()
    else:
        _unshare()
        _build()
    child = os.fork()  # the first process of the namespace; this one stays outside and watches the clock
    if child == 0:
        try:
            _become(program, pipe, int(seconds) + 1, *limits)
        finally:
            os.write(pipe, NOT_MADE)
            os._exit(1)
    return _wait(child, seconds, pipe)


def _wait(child: int, seconds: float, pipe: int) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status) & 0xFF
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.write(pipe, TIMED_OUT)
    return 1


def _unshare() -> None:
    """Enter new namespaces, as an ordinary user in them."""
    user, group = os.geteuid(), os.getegid()
    _call(libc.unshare, NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{INSIDE} {user} 1"), ("gid_map", f"{INSIDE} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _build() -> None:
    """Build a file system that holds the interpreter and the libraries of the system, read-only."""
    _mount("none", "/", None, RECURSIVE | PRIVATE)
    # What is to be brought may lie under the place of the new root, so it is reached from before that is covered.
    opened = {path: os.open(path, os.O_PATH) for path in PATHS if os.path.isdir(path) and not os.path.islink(path)}
    links = {path: os.readlink(path) for path in PATHS if os.path.islink(path)}
    _mount("none", ROOT, b"tmpfs", NO_SUID | NO_DEV, "size=1m,nr_inodes=1000,mode=755")
    for path, target in links.items():
        os.symlink(target, ROOT + path)
    for path, descriptor in opened.items():
        if not os.path.isdir(ROOT + path):  # it may be inside what is there already
            os.makedirs(ROOT + path)
            _mount(f"/proc/self/fd/{descriptor}", ROOT + path, None, BIND | RECURSIVE)
            _protect(ROOT + path)
        os.close(descriptor)
    os.mkdir(f"{ROOT}/desk")


def _protect(place: str) -> None:
    """Make everything that is mounted at a place and below it read-only."""
    with open("/proc/self/mountinfo") as table:
        mounts = [line.split()[4] for line in table]
    for mount in mounts:
        if mount == place or mount.startswith(f"{place}/"):
            flags = sum(flag for bit, flag in KEPT.items() if os.statvfs(mount).f_flag & bit)
            _mount("none", mount, None, flags | BIND | REMOUNT | READ_ONLY)


def _become(program: bytes, pipe: int, seconds: int, memory: int, size: int, files: int) -> None:
    """Move into the new file system, set the limits and become the program."""
    _call(libc.prctl, DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    for stream in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    _mount(ROOT, ROOT, None, BIND | RECURSIVE)  # a mount of this namespace's own, which alone can become the root
    os.chdir(ROOT)
    _mount("none", f"{ROOT}/desk", b"tmpfs", NO_SUID | NO_DEV, f"size={size}m,nr_inodes=100,mode=700")
    with open(f"{ROOT}/desk/program.py", "wb") as file:
        file.write(program)
    _mount("none", ROOT, None, BIND | REMOUNT | READ_ONLY | NO_SUID | NO_DEV)
    _call(libc.syscall, PIVOT_ROOT[os.uname().machine], b".", b".")
    _call(libc.umount2, b".", DETACH)
    os.chdir("/desk")
    for kind, limit in (
        (resource.RLIMIT_AS, memory << 20),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, size << 20),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 1),
    ):
        resource.setrlimit(kind, (limit, limit))
    _call(libc.prctl, NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    os.closerange(3, pipe)
    os.closerange(pipe + 1, 4096)
    os.set_inheritable(pipe, False)  # it closes as the interpreter starts
    os.write(pipe, MADE)
    os.execve(PYTHON, ["python", "-I", "-S", "-B", "program.py"], {})


def _mount(source: str, target: str, kind: bytes | None, flags: int, options: str = "") -> None:
    _call(libc.mount, source.encode(), target.encode(), kind, ctypes.c_ulong(flags), options.encode() or None)


def _call(function, *arguments) -> None:
    """Call the C library; raises OSError with its reason."""
    if function(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    try:
        code = main()
    except (OSError, KeyError) as error:
        print(error, file=sys.stderr)
        code = 1
    sys.exit(code)
