"""Memory of a session's processes, shared pages once."""

import re
import subprocess
import sys
import time
from dataclasses import fields

import psutil
import pytest

import uniemo_ray.head.usage as head_usage
from uniemo_ray.head.state import HeadState
from uniemo_ray.head.usage import Usage, proportional_bytes

HOLD = "import sys; held = bytearray(b'x' * 150_000_000); print('ready', flush=True); sys.stdin.read()"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows PSS")


def test_the_peak_counts_processes_of_the_head_that_are_gone_again(monkeypatch):
    monkeypatch.setattr(head_usage, "EVERY_S", 0.02)
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert held.stdout is not None
    assert held.stdout.readline() == b"ready\n"
    values = dict.fromkeys((field.name for field in fields(HeadState)), "")
    process = psutil.Process(held.pid)
    state = HeadState(**{**values, "name": "x", "pid": held.pid, "created_at_s": process.create_time()})
    mine = proportional_bytes(psutil.Process())
    with Usage(state) as usage:
        deadline = time.monotonic() + 30
        while usage._peak_bytes < mine + 100_000_000 and time.monotonic() < deadline:
            time.sleep(0.02)
        held.communicate()
    assert re.fullmatch(r"0:\d\d min, peak memory of all processes \d\.\d GB", usage.line())
    assert 100_000_000 < usage._peak_bytes - mine < 1_000_000_000  # ours may have shrunk meanwhile
    assert proportional_bytes(process) == 0
