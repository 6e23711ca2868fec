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
from types import FrameType

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
        self._lost = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._lost and self._in_unraisable(frame):
            return  # it were lost once more; `_insist` comes again
        if self.number is None or self._lost or time.monotonic() > self._until:
            self.number = self.number or number
            self._until, self._lost = time.monotonic() + CLEARING, False
            raise KeyboardInterrupt

    def unraisable(self, what: "sys.UnraisableHookArgs") -> None:
        """Interrupt once more where Python could not hand on the exception, as in a weak reference's callback."""
        if self.number is None or not isinstance(what.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(what)
            return
        self._lost = True
        threading.Thread(target=self._insist, args=(threading.get_ident(), self.number), daemon=True).start()

    def _in_unraisable(self, frame: FrameType | None) -> bool:
        while frame is not None and frame.f_code is not _Interruption.unraisable.__code__:
            frame = frame.f_back
        return frame is not None

    def _insist(self, thread: int, number: int) -> None:
        """Send signals until one is heard."""
        while self._lost:
            _signal(thread, number)
            time.sleep(0.01)


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
