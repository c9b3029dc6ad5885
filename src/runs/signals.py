"""Ctrl-C and SIGTERM during a fit, held back until the fit can be saved."""

import _thread
import logging
import os
import signal
import socket
import threading
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

PATIENCE = 2  # seconds that a second signal waits for the main thread to come back to Python


def take_back_sigterm() -> None:
    """Puts Python's handler in place again, to be called once a data pipeline is at work.

    MindSpore's threads replace it: a SIGTERM from the parent process (a scheduler, a sweep) would
    end the process on the spot, with exit code 0 and nothing saved.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def watch_ctrl_c() -> None:
    """Lets a thread of its own wait for SIGINT, and hand it to Python's handler.

    While MindSpore runs a graph it has a handler of its own, which makes a SIGTERM of SIGINT. No
    thread takes a blocked signal, so this is to be called before there are any: they inherit it.
    """

    main = threading.get_ident()

    def wait() -> None:
        while True:
            signal.sigwait({signal.SIGINT})
            _thread.interrupt_main(signal.SIGINT)
            signal.pthread_kill(main, signal.SIGURG)  # ends what it waits for in the kernel

    signal.signal(signal.SIGURG, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=wait, name="Ctrl-C", daemon=True).start()


class HeldSignals:
    """Holds SIGINT and SIGTERM back inside a `with`, until `obey` or its end lets them through.

    Between two steps the network and everything around it belong together; inside a step they do
    not. A second signal is obeyed at once. What was held back goes to the handler that was there
    before, which raises.

    Python's handlers wait until the main thread is back from a call into C++, which may take many
    steps. A thread sees the signals meanwhile: it says that the first one has come, and ends the
    process where the second one is not obeyed.
    """

    def __init__(self) -> None:
        self.held: int | None = None  # number of the signal
        self._handlers: dict[int, Any] = {}
        self._obeyed = threading.Event()

    def __enter__(self) -> "HeldSignals":
        self.held = None
        self._obeyed.clear()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._hold)
            arrivals, self._arrived = socket.socketpair()
            self._arrived.setblocking(False)
            self._wakeup = signal.set_wakeup_fd(self._arrived.fileno(), warn_on_full_buffer=False)
            threading.Thread(
                target=self._watch, args=(arrivals,), name="signals", daemon=True
            ).start()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._handlers:
            signal.set_wakeup_fd(self._wakeup)
            self._arrived.close()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None:
            self.obey()

    def obey(self) -> None:
        """Raises what was held back, a KeyboardInterrupt; to be called where a fit can be left."""
        if self.held is not None:
            self._raise(self.held)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self.held is not None:
            self.held = None  # this is no place where the fit could be saved
            self._raise(number)
        self.held = number

    def _raise(self, number: int) -> None:
        self._obeyed.set()
        handler = self._handlers.get(number)
        if callable(handler):
            handler(number, None)
        raise KeyboardInterrupt

    def _watch(self, arrivals: socket.socket) -> None:
        """Sees each signal as it comes: a byte, its number; none once the `with` has ended."""
        count = 0
        with arrivals:
            while number := arrivals.recv(1):
                if number[0] not in self._handlers:
                    continue
                count += 1
                name = signal.Signals(number[0]).name
                if count == 1:
                    log.warning(
                        "%s: stopping where it can be saved; once more stops at once, unsaved", name
                    )
                elif not self._obeyed.wait(PATIENCE):
                    log.warning("%s: stopped at once, unsaved", name)
                    os._exit(128 + number[0])
