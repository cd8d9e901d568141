"""SIGINT, SIGTERM and SIGHUP of `make observe`: while the runner runs they are its own, so that the run ends in its summary; at any
other time they end what is waited for."""

import signal
import subprocess

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Takes over these signals. Whatever else is started must be kept from the terminal's: see `apart`."""

    def __init__(self):
        self.received = False
        self._forward = None
        self._is_closing = False
        for number in ALL:
            # Under nohup a closed terminal is to change nothing.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number, _frame) -> None:
        self.received = True
        if self._forward:
            self._forward(number)
        elif not self._is_closing:
            raise KeyboardInterrupt

    def closing(self) -> None:
        """From now on nothing cuts the end short: it is bounded by itself."""
        self._is_closing = True

    def run(self, command: list[str], interrupt=None, **options) -> int:
        """Runs a command to its end; gives its exit code. A signal is forwarded to it, or handled by `interrupt`."""
        held = []
        # Until there is somebody to forward them to.
        self._forward = held.append
        child = apart(command, **options)
        self._forward = interrupt or child.send_signal
        for number in held:
            self._forward(number)
        try:
            code = child.wait()
        finally:
            self._forward = None
        # One that did not even come to handle the signal has measured nothing.
        return code if code >= 0 else 2

    def wait(self) -> None:
        """Until there is one."""
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass


def apart(command: list[str], **options) -> subprocess.Popen:
    """Starts a process that Ctrl-C and a closed terminal do not reach."""
    return subprocess.Popen(command, start_new_session=True, **options)
