"""Programs that a model has written run alone: what they may do, what they may not, and what becomes of them."""

import subprocess
import time

import pytest

from hemorrhage.tasks import sandbox

pytestmark = [
    pytest.mark.skipif(sandbox.why_not() is not None, reason=str(sandbox.why_not())),
    pytest.mark.xdist_group("sandbox"),  # one of them looks for processes that the others would have
]
SHORT = sandbox.Limits(seconds=3)


def passes(program, limits=SHORT):
    return sandbox.run(program, limits) == sandbox.PASSED


def refuses(action, error="OSError"):
    """Whether an action fails inside with an error of a kind; the program passes if it does."""
    return passes(f"import os\ntry:\n    {action}\nexcept {error}:\n    pass\nelse:\n    raise SystemExit(1)\n")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("x = 1", sandbox.PASSED),
        ("import math, re, collections, heapq, itertools\nassert math.gcd(4, 6) == 2", sandbox.PASSED),
        ("print('x' * 10 ** 6)", sandbox.PASSED),
        ("assert 1 == 2", sandbox.FAILED),
        ("raise SystemExit(3)", sandbox.FAILED),
        ("def f(:", sandbox.FAILED),
        ("", sandbox.PASSED),
        ("x = '\udcff'", sandbox.PASSED),
        *((f"raise SystemExit({code})", sandbox.FAILED) for code in (1, 124, 125)),
    ],
)
def test_what_became_of_it(program, expected):
    assert sandbox.run(program, SHORT) == expected


@pytest.mark.parametrize("leaving", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit"])
def test_leaving_before_the_tests_is_not_passing_them(leaving):
    assert sandbox.run(f"{leaving}\nassert False", SHORT) == sandbox.FAILED


def test_a_program_without_end_is_ended():
    start = time.monotonic()
    assert sandbox.run("while True: pass", sandbox.Limits(seconds=1)) == sandbox.TIMED_OUT
    assert sandbox.run("import time; time.sleep(100)", sandbox.Limits(seconds=1)) == sandbox.TIMED_OUT
    assert time.monotonic() - start < 20


def test_memory_is_limited():
    assert passes("try:\n    bytearray(10 ** 9)\nexcept MemoryError:\n    pass\nelse:\n    raise SystemExit(1)")
    assert sandbox.run("x = [0]\nwhile True: x += x", SHORT) != sandbox.PASSED


def test_there_is_no_second_process_or_thread():
    assert refuses("os.fork()")
    assert refuses("import subprocess; subprocess.run(['/bin/true'])")
    assert refuses("import threading; threading.Thread(target=print).start()", "RuntimeError")


def test_a_fork_bomb_leaves_nothing_behind():
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    assert sandbox.run(bomb, sandbox.Limits(seconds=1)) == sandbox.TIMED_OUT
    for _ in range(20):  # the kernel takes a moment to end them all
        table = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        if "-B program.py" not in table:
            return
        time.sleep(0.1)
    pytest.fail(table)


def test_it_cannot_speak_for_its_sandbox():
    """The pipe that says what became of the sandbox is closed: nothing above the three streams is open."""
    assert passes(
        "import os\n"
        "for place in range(3, 256):\n"
        "    try:\n        os.write(place, b'n')\n"
        "    except OSError:\n        continue\n"
        "    raise SystemExit(1)"
    )


@pytest.mark.parametrize("place", ["if os.geteuid() == 0:", "os.chdir(ROOT)", "os.execve(PYTHON,"])
def test_a_sandbox_that_breaks_while_it_is_made_is_refused(monkeypatch, tmp_path, place):
    child, source = tmp_path / "child.py", sandbox.CHILD.read_text()
    assert source.count(place) == 1
    child.write_text(source.replace(place, f"os.rmdir('/nowhere')\n    {place}"))
    monkeypatch.setattr(sandbox, "CHILD", child)
    assert sandbox.run("pass", SHORT) == sandbox.REFUSED


def test_there_is_no_network():
    assert refuses("import socket; socket.create_connection(('127.0.0.1', 22), 1)")
    assert refuses("import socket; socket.create_connection(('192.0.2.1', 80), 1)")
    assert passes("import socket\nassert [n for _, n in socket.if_nameindex()] in ([], ['lo'])")


def test_the_files_of_the_user_are_not_there(tmp_path):
    (tmp_path / "secret").write_text("x")
    assert refuses(f"open({str(tmp_path / 'secret')!r})", "FileNotFoundError")
    assert refuses(f"open({__file__!r})", "FileNotFoundError")
    assert refuses("open('/etc/passwd')", "FileNotFoundError")
    assert passes("import os\nassert not set(os.environ) - {'LC_CTYPE'}")


@pytest.mark.parametrize("place", ["/x", "/usr/x", "/usr/lib/x", "/bin/x"])
def test_writing_outside_of_its_folder_fails(place):
    assert refuses(f"open({place!r}, 'w')")


def test_it_may_write_small_files_that_are_gone_afterwards():
    assert passes("open('kept', 'w').write('x')\nassert open('kept').read() == 'x'")
    assert refuses("open('kept')", "FileNotFoundError")
    assert not passes("with open('big', 'wb') as file:\n    for _ in range(100): file.write(bytes(10 ** 6))")
    assert not passes("for i in range(9):\n    open(f'part{i}', 'wb').write(bytes(10 ** 6))")


def test_open_files_are_limited():
    assert refuses("kept = [open('x', 'w') for _ in range(100)]")


def test_it_gains_nothing_by_namespaces_of_its_own():
    mount = "import ctypes; c = ctypes.CDLL(None); ok = c.mount(b'none', b'/usr', None, ctypes.c_ulong({}), None)"
    assert passes(f"{mount.format(32 | 4096)}\nassert ok != 0")  # remounted writable
    assert passes(
        "import ctypes\nc = ctypes.CDLL(None)\nc.unshare(0x10020000)\n"
        "c.mount(b'none', b'/usr', None, ctypes.c_ulong(32 | 4096), None)\n"
        "try:\n    open('/usr/x', 'w')\nexcept OSError:\n    pass\nelse:\n    raise SystemExit(1)"
    )


def test_where_no_namespace_can_be_made_it_is_refused(monkeypatch, tmp_path):
    child = tmp_path / "child.py"
    child.write_text("raise SystemExit(1)")
    monkeypatch.setattr(sandbox, "CHILD", child)
    sandbox.why_not.cache_clear()
    try:
        assert sandbox.run("pass") == sandbox.REFUSED
        with pytest.raises(ValueError, match="run_code: no namespace without network"):
            sandbox.require()
    finally:
        sandbox.why_not.cache_clear()
