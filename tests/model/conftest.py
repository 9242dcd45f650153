"""What tests of training share."""

import contextlib
import os
import signal

import pytest


@pytest.fixture
def stopping(monkeypatch):
    """`with stopping(step):` trainings, golden ones too, are told to end in that step, as a user's SIGTERM tells them."""
    from spikeloom.model.train import Run

    learn = Run.learn

    @contextlib.contextmanager
    def at(step):
        def stopped(self, *batch):
            if self.step == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return learn(self, *batch)

        with monkeypatch.context() as patch:
            patch.setattr(Run, "learn", stopped)
            yield

    return at
