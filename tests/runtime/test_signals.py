import os
import signal
import time

import pytest

from vidtl.runtime import signals as module
from vidtl.runtime.launch import StoppedBySignalError
from vidtl.runtime.signals import STOP_SIGNALS, StopSignals


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_a_signal_is_noted_and_the_handlers_come_back(signum):
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with StopSignals() as signals:
        assert signals.signum == 0
        os.kill(os.getpid(), signum)
        assert signals.signum == signum
        os.kill(os.getpid(), signum)  # Ctrl-C comes from the terminal and from the launcher
        with pytest.raises(StoppedBySignalError, match=signal.Signals(signum).name):
            signals.check(signals.signum)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_second_signal_ends_the_process_at_once(monkeypatch):
    monkeypatch.setattr(module, "SAME_REQUEST_S", 0.0)
    child = os.fork()
    if child == 0:
        with StopSignals():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130


def test_interrupts_work_that_nothing_is_lost_of():
    finished = []

    def work(signals, interrupt):
        with signals.immediate():
            interrupt()
            finished.append(True)

    with StopSignals() as signals:
        work(signals, lambda: None)
        with pytest.raises(StoppedBySignalError):
            work(signals, lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(30)))
        with pytest.raises(StoppedBySignalError):
            work(signals, lambda: None)  # not begun: the signal had come before
    assert finished == [True]
