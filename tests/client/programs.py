"""Applications that use the client in every way a process can begin and end: ``python -m tests.client.programs NAME``.

Each takes the server from THE_EYE_URL and prints the ids of the events that must arrive, one a line.
"""

import atexit
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import NoReturn

from tests.client.tracking import track, track_many

from the_eye_client import Eye, Settings

SETTINGS = Settings(
    batch_seconds=float(os.environ.get("BATCH_SECONDS", "0.05")),
    first_backoff_seconds=0.05,
    longest_backoff_seconds=0.2,
    close_seconds=float(os.environ.get("CLOSE_SECONDS", "20")),
    spool=os.environ.get("SPOOL"),
)
CHILDREN = 2
EVENTS = 20


def say(ids: set[str]) -> None:
    """Print ids in one write, so that lines of several processes do not mix."""
    sys.stdout.flush()
    os.write(1, "".join(f"{event_id}\n" for event_id in ids).encode())


def end_at_once() -> None:
    """Track, and reach the end of the program."""
    say(track_many(Eye(settings=SETTINGS), EVENTS))


def end_by_exception() -> None:
    """Track, and fail."""
    say(track_many(Eye(settings=SETTINGS), EVENTS))
    raise SystemExit(3)


def track_at_exit() -> None:
    """Track for the first time when the interpreter ends, where it starts no thread any more."""
    eye = Eye(settings=SETTINGS)
    eye._register()  # noqa: SLF001 - so that what follows is called before the client's own end
    atexit.register(lambda: say(track_many(eye, EVENTS)))


def be_killed() -> None:
    """Track, wait until all is in the spool and has been tried to send, and be killed."""
    eye = Eye(settings=SETTINGS)
    ids = track_many(eye, EVENTS)
    while eye.counters.spooled < EVENTS or not eye.counters.retried:
        pass
    say(ids)
    os.kill(os.getpid(), signal.SIGKILL)


def deliver() -> None:
    """Send what others have left in the spool."""
    with Eye(settings=SETTINGS) as eye:
        track(eye)
        eye.flush(60.0)
        deadline = time.monotonic() + 60.0
        while eye.counters.sent < int(os.environ.get("WANTED", "1")) and time.monotonic() < deadline:
            time.sleep(0.01)  # flush waits for the own event alone
        print(json.dumps({"sent": eye.counters.sent}))  # noqa: T201 - for the test


def fork() -> None:
    """Fork with events in memory, on their way and to come, as a pre-forking server does."""
    eye = Eye(settings=SETTINGS)
    ids = track_many(eye, EVENTS)
    children = []
    for _ in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            assert eye.counters.queued == 0, "the parent's events are the parent's"
            say(track_many(eye, EVENTS))
            sys.exit(0)
        children.append(pid)
        ids |= track_many(eye, EVENTS)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert statuses == [0] * CHILDREN, statuses
    say(ids)


def fork_without_a_word() -> None:
    """Fork a child that never tracks anything and another that ends without Python knowing."""
    eye = Eye(settings=SETTINGS)
    ids = track_many(eye, EVENTS)
    for end in (sys.exit, os._exit):
        pid = os.fork()
        if pid == 0:
            end(0)
        assert os.waitpid(pid, 0)[1] == 0
    say(ids)


def fork_while_threads_track() -> None:
    """Fork again and again while threads are in the middle of everything that takes a lock."""
    eye = Eye(settings=SETTINGS)
    ended = threading.Event()
    all_ids: list[set[str]] = []

    def work() -> None:
        mine: set[str] = set()
        while not ended.wait(0.005):
            mine.add(track(eye))
        all_ids.append(mine)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                ids = track_many(eye, 5)
                arrived = eye.flush(50.0)
                eye.close()  # or others would leave the parent's events alone that it has in hand
                say(ids)
                os._exit(0 if arrived else 1)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    say(set().union(*all_ids))


_eye: Eye | None = None


def _child(number: int) -> None:
    """Be a child of multiprocessing: one that was forked has the parent's client, one that was spawned its own."""
    eye = _eye or Eye(settings=SETTINGS)
    say({track(eye, number) for _ in range(EVENTS)})


def multiprocess(method: str) -> None:
    """Have children track by multiprocessing, in processes and in a pool."""
    global _eye  # noqa: PLW0603 - as an application's module has its client
    _eye = Eye(settings=SETTINGS)
    say(track_many(_eye, EVENTS))
    multiprocessing.set_start_method(method)
    processes = [multiprocessing.Process(target=_child, args=(number,)) for number in range(CHILDREN)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    pool = multiprocessing.Pool(2)
    pool.map(_child, range(CHILDREN))
    pool.close()
    pool.join()


def multiprocess_fork() -> None:
    """See ``multiprocess``."""
    multiprocess("fork")


def multiprocess_spawn() -> None:
    """See ``multiprocess``."""
    multiprocess("spawn")


def multiprocess_forkserver() -> None:
    """See ``multiprocess``."""
    multiprocess("forkserver")


def share_a_spool() -> None:
    """Be one of several processes that write to the same spool and send from it."""
    eye = Eye(settings=SETTINGS)
    for _ in range(10):
        say(track_many(eye, EVENTS))
        eye.flush(0.2)


def main() -> NoReturn:
    """Run the program that the first argument names."""
    globals()[sys.argv[1]]()
    sys.exit(0)


if __name__ == "__main__":
    main()
