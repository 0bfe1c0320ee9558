"""A process that does what its standard input says, for the tests of processes that are bounded."""

import os
import signal
import sys
import time

from the_eye.confinement import confine


def main() -> None:
    """Behave well or badly."""
    wish = sys.stdin.read()
    match wish:
        case "wait":
            time.sleep(600)
        case "spill":
            while True:
                sys.stdout.write("x" * 2**16)
        case "loop":
            confine(processor_seconds=1, memory_bytes=2**30)
            while True:
                pass
        case "devour":
            confine(processor_seconds=60, memory_bytes=2**26)
            bytearray(2**30)
        case "abort":
            os.kill(os.getpid(), signal.SIGABRT)
        case "environ":
            sys.stdout.write("\n".join(os.environ))
        case "fail":
            sys.exit(3)
        case _:
            sys.stdout.write(wish)


if __name__ == "__main__":
    main()
