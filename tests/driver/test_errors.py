"""`driver.errors`: every error says what to do, and keeps its state for programs."""

import inspect
import pickle

import pytest

from spikeloom.driver import errors

TYPES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.SpikeloomError)]


@pytest.mark.parametrize("kind", TYPES)
def test_every_error_says_what_to_do(kind):
    error = kind("It happened.", state={"address": 0x1000, "beats": 3, "busy": True})
    assert str(error) == f"It happened. {kind.remedy} [address=0x1000, beats=3, busy=True]"
    assert kind.remedy.endswith(".") and error.state["address"] == 0x1000


def test_a_remedy_can_be_given():
    assert str(errors.DeadlineExpired("It is late.", remedy="Wait.")) == "It is late. Wait."
    assert str(errors.DeadlineExpired("It is late.", remedy="")) == "It is late."


def test_errors_survive_a_pickle():
    error = pickle.loads(pickle.dumps(errors.BusError("Nobody there.", state={"address": 64})))
    assert (error.what, error.state) == ("Nobody there.", {"address": 64})
