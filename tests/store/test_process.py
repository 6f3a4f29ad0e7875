"""A process is alive only as itself."""

import os
import subprocess
import sys
from dataclasses import replace

from uniemo_ray.store.process import ProcessIdentity, is_alive, is_same_machine, this_process

SHOW = "from uniemo_ray.store.process import this_process as t; print(repr(t()), flush=True); input()"


def test_this_process_is_alive_here() -> None:
    assert is_same_machine(this_process())
    assert is_alive(this_process())


def test_another_process_until_it_is_killed_even_unreaped() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SHOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdin is not None
    identity = eval(child.stdout.readline(), {"ProcessIdentity": ProcessIdentity})
    assert identity.pid == child.pid
    assert is_alive(identity)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is left unreaped
    assert not is_alive(identity)
    child.wait()
    assert not is_alive(identity)
    child.stdin.close()
    child.stdout.close()


def test_a_reused_number_is_another_process() -> None:
    assert not is_alive(replace(this_process(), start_ticks="1"))


def test_other_boots_and_containers_are_other_machines() -> None:
    assert not is_same_machine(replace(this_process(), boot_id="x"))
    assert not is_same_machine(replace(this_process(), pid_namespace="pid:[1]"))
