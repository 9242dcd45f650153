"""Every row of the list of systems that has a network: its golden form computes what its integers do."""

import pytest
import torch

from spikeloom.model.golden import GoldenOptions
from spikeloom.model.golden.export import to_stored
from spikeloom.model.golden.samples import sample
from spikeloom.model.integer_torch import IntegerSequences
from spikeloom.systems import ROWS

RUNNABLE = [row for row in ROWS if row.changes is not None]


@pytest.mark.parametrize("row", RUNNABLE, ids=lambda row: row.name)
def test_golden_form_and_integers_agree(row, seed, fine_thresholds):
    """Nearly all rows of logits are equal to 1e-3; `test_export` shows what rounding to the gateware's thresholds costs.

    A row without golden options of its own takes the plainest.
    """
    plain = {"position": "learned"} | ({} if row.config.residual == "membrane" else {"fraction": row.config.spike_shift})  # a spike is 1
    model = sample(seed, row.config, GoldenOptions.from_dict(row.options or plain))
    stored = to_stored(model)
    tokens = torch.randint(row.config.vocabulary, (24, row.config.context))
    got = IntegerSequences(stored.tensors, stored.config)(tokens).double() / stored.logit_scale
    with torch.no_grad():
        want = model(tokens)[:, : got.shape[1]].double()
    assert ((got - want).abs() < 1e-3).all(-1).double().mean() > 0.98
    assert want.std(0).mean() > 0.01  # the network listens
