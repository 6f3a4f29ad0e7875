"""Work that depends on other work."""

import threading
import time
from collections.abc import Collection, Mapping

import pytest

from uniemo_ray.store.graph import Graph

DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


class Log:
    """A graph's work, noted as it happens; `sleep` seconds each."""

    def __init__(self, *, sleep: float = 0.0, skipped: Collection[str] = (), failing: Collection[str] = ()):
        self.sleep, self.skipped, self.failing = sleep, skipped, failing
        self.started: list[str] = []
        self.threads: dict[str, str] = {}
        self.asked: list[str] = []

    def skip(self, name: str) -> str | None:
        self.asked.append(name)
        return f"old {name}" if name in self.skipped else None

    def execute(self, name: str, inputs: Mapping[str, str]) -> str:
        self.started.append(name)
        self.threads[name] = threading.current_thread().name
        time.sleep(self.sleep)
        if name in self.failing:
            raise ZeroDivisionError(name)
        return f"{name}({','.join(inputs.values())})"

    def run(self, inputs: Mapping[str, Collection[str]], *, most: int = 9) -> dict[str, str]:
        def has_room(_: str, running: Collection[str]) -> bool:
            return len(running) < most

        return Graph(inputs, skip=self.skip, execute=self.execute, has_room=has_room).run()


def test_one_after_the_other_keeps_the_order_and_the_thread():
    log = Log()
    done = log.run(DIAMOND, most=1)
    assert log.started == ["a", "b", "c", "d"]
    assert done == {"a": "a()", "b": "b(a())", "c": "c(a())", "d": "d(b(a()),c(a()))"}
    assert set(log.threads.values()) == {threading.current_thread().name}


def test_side_by_side_it_takes_the_critical_path_and_gives_the_same():
    wide = {"start": (), **{f"w{i}": ("start",) for i in range(4)}, "end": tuple(f"w{i}" for i in range(4))}
    alone = Log().run(wide, most=1)
    log = Log(sleep=0.3)
    started = time.monotonic()
    assert log.run(wide) == alone
    assert list(log.run(wide)) == list(wide)
    seconds = (time.monotonic() - started) / 2
    assert 0.9 <= seconds < 1.5  # three of six pieces after each other
    assert log.threads["start"] == log.threads["end"] == threading.current_thread().name
    assert log.threads["w2"] == "w2"


def test_no_more_run_than_there_is_room_for():
    log = Log(sleep=0.1)
    most_seen, running, lock = 0, 0, threading.Lock()
    execute = log.execute

    def counted(name: str, inputs: Mapping[str, str]) -> str:
        nonlocal most_seen, running
        with lock:
            running += 1
            most_seen = max(most_seen, running)
        result = execute(name, inputs)
        with lock:
            running -= 1
        return result

    log.execute = counted  # type: ignore[method-assign]
    log.run({f"p{i}": () for i in range(6)}, most=3)
    assert most_seen == 3


def test_what_needs_no_work_is_asked_once_and_never_started():
    log = Log(skipped=["a", "b"])
    assert log.run(DIAMOND)["d"] == "d(old b,c(old a))"
    assert log.started == ["c", "d"]
    assert log.asked == ["a", "b", "c", "d"]


def test_a_failure_lets_the_others_finish_and_starts_nothing_new(caplog):
    log = Log(sleep=0.1, failing=["b"])
    ends: list[str] = []
    execute = log.execute

    def slower(name: str, inputs: Mapping[str, str]) -> str:
        result = execute(name, inputs)
        time.sleep(0.3 if name == "c" else 0)
        ends.append(name)
        return result

    log.execute = slower  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError, match="b"):
        log.run({"a": (), "b": ("a",), "c": ("a",), "e": ("c",)})
    assert ends == ["a", "c"]
    assert log.started == ["a", "b", "c"]
    assert "b failed: c come to their end first" in caplog.text


def test_ctrl_c_ends_the_wait_and_says_what_ran(caplog):
    log = Log(sleep=2.0)
    graph = Graph(
        {"a": (), "b": ()}, skip=log.skip, execute=log.execute, has_room=lambda _name, _running: True
    )

    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    graph._ended.get = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        graph.run()
    assert "stopped while a, b were running: submit again to go on" in caplog.text
