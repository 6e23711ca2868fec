"""The command line as a process: ``python -m cnnviz`` is ``cnnviz``.

Ctrl-C, SIGTERM and a terminal that hangs up mean the same, at any moment, also while modules are still being imported:
what is finished is kept, what is not is cleared away, and the exit status is 128 and the signal's number.
"""

import _thread
import contextlib
import signal
import sys
import threading
import time

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
CLEARING = 3.0  # seconds in which further signals are the same wish, and must not cut the clearing away short


class _Interruption:
    """Turns signals into KeyboardInterrupt.

    Attributes:
        number: of the first signal that came; None as long as none did.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._until = 0.0

    def __call__(self, number: int, _: object) -> None:
        if self.number is None or time.monotonic() > self._until:
            self.number = self.number or number
            self._until = time.monotonic() + CLEARING
            raise KeyboardInterrupt

    def unraisable(self, what: "sys.UnraisableHookArgs") -> None:
        """Interrupt once more where Python could not hand on the exception, as in a weak reference's callback."""
        if self.number is None or not isinstance(what.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(what)
            return
        self._until = 0.0
        again = threading.Timer(0.01, _signal, (threading.get_ident(), self.number))  # not in here: it were lost too
        again.daemon = True
        again.start()


def _signal(thread: int, number: int) -> None:
    """Send the main thread a signal, which wakes it where the system can do that."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(thread, number)
    else:
        _thread.interrupt_main(signal.Signals(number))


def main() -> None:
    """Run the command line of this process, and exit."""
    interruption = _Interruption()
    try:
        _run(interruption)
    except BaseException as error:  # whatever a KeyboardInterrupt became on its way here
        if interruption.number is None:
            raise
        if not isinstance(error, SystemExit):  # which has told already
            with contextlib.suppress(OSError):
                print("interrupted", file=sys.stderr)  # noqa: T201 - click is perhaps not there yet
        sys.exit(128 + interruption.number)


def _run(interruption: _Interruption) -> None:
    taken = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup and & want it
    try:
        sys.unraisablehook = interruption.unraisable
        for number in taken:
            signal.signal(number, interruption)
        from cnnviz.cli import cli

        cli(prog_name="cnnviz")
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)  # while Python winds up, nothing could catch an exception


if __name__ == "__main__":
    main()
