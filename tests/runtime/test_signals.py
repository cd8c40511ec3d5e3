import ctypes
import os
import signal
import threading
import time

import pytest

from tests.stress.outcome import ending_of, in_child
from vidtl.runtime import signals as module
from vidtl.runtime.signals import STOP_SIGNALS, StoppedBySignalError, StopSignals


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_a_signal_is_recorded_and_the_handlers_are_restored(signum):
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with StopSignals() as signals:
        assert signals.signum == 0
        os.kill(os.getpid(), signum)
        assert signals.signum == signum
        os.kill(os.getpid(), signum)  # Ctrl-C comes from the terminal and from the launcher
        with pytest.raises(StoppedBySignalError, match=signal.Signals(signum).name):
            signals.check(signals.signum)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_other_threads_see_a_signal_before_the_main_thread_handles_it():
    known = []

    def watch(signals):
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        known.append((signals.signum, signals.arrived()))

    with StopSignals() as signals:
        assert not signals.arrived()
        thread = threading.Thread(target=watch, args=(signals,))
        thread.start()
        ctypes.CDLL(None).sleep(1)  # a call that no signal to another thread interrupts
        thread.join()
    assert known == [(0, True)]
    assert signal.set_wakeup_fd(-1) == -1


def test_a_second_signal_ends_the_process_at_once(monkeypatch):
    monkeypatch.setattr(module, "SAME_REQUEST_S", 0.0)

    def work():
        with StopSignals():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)

    assert ending_of(in_child(work)) == 130


def test_a_signal_interrupts_an_immediate_block():
    finished = []

    def stop():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    with StopSignals() as signals:
        with signals.immediate():
            finished.append(1)
        with pytest.raises(StoppedBySignalError), signals.immediate():
            stop()
        with pytest.raises(StoppedBySignalError), signals.immediate():
            finished.append(2)  # not started: the signal arrived before
    assert finished == [1]
