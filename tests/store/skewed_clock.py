"""Processes whose wall clock is wrong: a small library before the C library's own."""

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = r"""
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += SKEW;
    return (int)failed;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return out ? (*out = now.tv_sec) : now.tv_sec;
}
int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


def skewed_clock(folder: Path, skew_s: int) -> dict[str, str]:
    """The environment of a process that is `skew_s` seconds ahead; its monotonic clock is right."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    source, library = folder / "clock.c", folder / f"clock{skew_s}.so"
    source.write_text(_SOURCE)
    build = ["cc", "-shared", "-fPIC", f"-DSKEW={skew_s}", "-o", str(library), str(source)]
    subprocess.run(build, check=True)
    return {"LD_PRELOAD": str(library)}
