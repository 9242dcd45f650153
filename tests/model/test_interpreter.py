"""The emulator's datapath against `arch.numerics`, command by command."""

from collections import Counter

import numpy as np
import pytest

from spikeloom.arch.commands import STATELESS, Attention, Buffer, Command, Memory, Neuron, Opcode, Order, Sink
from spikeloom.arch.config import LEAK_OFF, RECENCY_OFF
from spikeloom.arch.layout import pack_parameters, pack_rows
from spikeloom.arch.numerics import (
    add_spikes,
    biased_scores,
    gather,
    neuron_step,
    raw_scores,
    saturate,
    sfsa_gather,
    ssa_gather,
    winners,
)
from spikeloom.arch.presets import preset
from spikeloom.model.interpreter import Interpreter, Place

CFG = preset("tiny")
LANES, WIDTH = CFG.lanes, CFG.max_width
STATEFUL = [kind for kind in Neuron if kind not in STATELESS]


def machine(params=b"", rows=b""):
    """An interpreter with these parameters and resident rows."""
    image = params + rows
    made = Interpreter(CFG, lambda offset, size: image[offset:offset + size], Counter())
    for memory, data, offset, word in ((Memory.PARAMETERS, params, 0, LANES * 8), (Memory.RESIDENT, rows, len(params), CFG.cols)):
        if data:
            made.execute(0, Command(Opcode.LOAD, {"l_memory": memory, "l_offset": offset, "l_words": len(data) // word}), Place())
    return made


def drawn(seed, channels=WIDTH):
    rng = np.random.default_rng(seed)
    base, step = rng.integers(-20_000, 20_000, channels), rng.integers(1, 30_000, channels)
    return rng, base, step, pack_parameters(base, step, lanes=LANES)


def groups(channels=WIDTH):
    return channels // LANES


@pytest.mark.parametrize("kind", STATEFUL)
@pytest.mark.parametrize("leak", [1, 3, LEAK_OFF])
@pytest.mark.parametrize("seed", range(3))
def test_membranes_connect_the_time_steps(kind, leak, seed):
    """Every neuron over four steps, twice: the second token does not see the first."""
    rng, base, step, params = drawn(seed)
    m, level = machine(params), 4 if kind == Neuron.I_LIF else 1
    for _ in range(2):
        membrane = 0
        for t in range(4):
            m.residual[0, :WIDTH] = x = rng.integers(-150, 150, WIDTH)
            fire = Command(Opcode.FIRE, {"groups": groups(), "level": level, "neuron": kind, "leak": leak, "first": int(t == 0), "dst": 1})
            got = m.execute(0, fire, Place())
            spikes, membrane = neuron_step(int(kind), x, membrane, base, step, levels=level, leak=leak)
            assert (got == spikes).all() and (m.spikes[1, :WIDTH] == spikes).all(), f"seed {seed}, step {t}"
    assert m.counters["neurons"] == 8 * WIDTH and m.counters["spikes"] > 0
    assert (kind == Neuron.T_LIF) == bool((m.spikes[1] < 0).any())


def test_ni_lif_leaves_membranes_alone():
    rng, base, step, params = drawn(1)
    m = machine(params)
    lif = Command(Opcode.FIRE, {"groups": groups(), "level": 1, "neuron": Neuron.LIF_SOFT, "leak": 1, "first": 1})
    m.residual[0, :WIDTH] = x = rng.integers(-150, 150, WIDTH)
    m.execute(0, lif, Place())
    m.execute(1, Command(Opcode.FIRE, {"groups": groups(), "level": 4}), Place())
    _, membrane = neuron_step("lif_soft", x, 0, base, step, leak=1)
    got = m.execute(0, Command(lif.opcode, {**lif.fields, "first": 0}), Place())
    assert (got == neuron_step("lif_soft", x, membrane, base, step, leak=1)[0]).all()


def test_spikes_replace_the_stream_of_their_own_slot():
    rng, base, step, params = drawn(2)
    m = machine(params)
    m.residual[:, :WIDTH] = before = rng.integers(-150, 150, (CFG.residual_slots, WIDTH))
    fire = Command(Opcode.FIRE, {"groups": groups(), "level": 4, "sink": Sink.SET_SPIKES, "embed_shift": 3, "dst": 2, "base_group": 5,
                                 "stream": 7})
    got = m.execute(0, fire, Place(position=4, slot=4))
    spikes, _ = neuron_step("ni_lif", before[11], 0, base, step, levels=4)
    assert (got == spikes).all() and (m.spikes[2, 5 * LANES:5 * LANES + WIDTH] == spikes).all()
    assert (m.residual[11] == spikes << 3).all()
    assert (np.delete(m.residual, 11, axis=0) == np.delete(before, 11, axis=0)).all()
    dump = Command(Opcode.DUMP, {"d_buffer": Buffer.RESIDUAL, "groups": groups(), "stream": 11})
    assert (m.dump(dump, Place(position=4)) == spikes << 3).all()
    assert (m.dump(Command(dump.opcode, {**dump.fields, "stream": 7}), Place(position=4, slot=4)) == spikes << 3).all()


@pytest.mark.parametrize("kind", [Neuron.NI_LIF, Neuron.T_LIF])
def test_spikes_are_added_to_the_stream(kind):
    rng, base, step, params = drawn(3)
    weights = rng.integers(-127, 128, (8, WIDTH))
    m = machine(params, pack_rows(weights, 8, WIDTH // CFG.cols, CFG))
    level = 4 if kind == Neuron.NI_LIF else 1
    m.spikes[0, :8] = levels = rng.integers(-1, 2, 8)
    m.residual[3, :WIDTH] = before = np.where(np.arange(WIDTH) % 3, 32_760, -50)
    linear = Command(Opcode.LINEAR, {"groups": groups(), "tiles": WIDTH // CFG.cols, "n_in": 8, "order": Order.TILES, "src": 0,
                                     "sink": Sink.ADD_SPIKES, "embed_shift": 4, "stream": 3, "level": level, "neuron": kind, "first": 1})
    got = m.execute(0, linear, Place())
    spikes, _ = neuron_step(int(kind), levels @ weights, 0, base, step, levels=level)
    expected, clipped = add_spikes(before, spikes, 4)
    assert (got == expected).all() and (m.residual[3, :WIDTH] == expected).all() and clipped == m.counters["saturations"] > 0
    assert m.counters["level_tiles"] == np.abs(levels).sum() * linear["tiles"]


@pytest.mark.parametrize("sink", [Sink.SET, Sink.SET_SPIKES])
def test_an_embedding_is_a_stream_or_drives_a_neuron(sink):
    rng, base, step, params = drawn(4)
    table = rng.integers(-127, 128, (12, WIDTH))
    m = machine(params, pack_rows(table, 8, WIDTH // CFG.cols, CFG))
    embed = Command(Opcode.EMBED, {"groups": groups(), "tiles": WIDTH // CFG.cols, "n_in": 10, "position_row": 1, "sink": sink,
                                   "embed_shift": 2, "stream": 1, "neuron": Neuron.LIF_HARD, "level": 1, "leak": 1, "first": 1, "dst": 1})
    got = m.execute(0, embed, Place(token=6, position=1))
    row = table[6] + table[11]
    spikes, _ = neuron_step("lif_hard", row, 0, base, step, leak=1)
    expected = saturate(row << 2)[0] if sink == Sink.SET else spikes << 2
    assert (m.residual[1, :WIDTH] == expected).all() and (got == (expected if sink == Sink.SET else spikes)).all()
    assert (m.spikes[1, :WIDTH] == (0 if sink == Sink.SET else spikes)).all()


@pytest.mark.parametrize("kind, level", [(Neuron.NI_LIF, 3), (Neuron.I_LIF, 3), (Neuron.T_LIF, 1)])
@pytest.mark.parametrize("attention", Attention)
@pytest.mark.parametrize("bidirectional", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_attention_over_cached_positions(kind, level, attention, bidirectional, seed):
    """Q, K, V of nine positions, then one row of attention; queries and keys take one level."""
    level = 1 if attention == Attention.SSA else level
    rng, base, step, params = drawn(seed, 3 * WIDTH)
    weights = rng.integers(-127, 128, (8, 3 * WIDTH))
    m = machine(params + pack_parameters(np.zeros(WIDTH), lanes=LANES), pack_rows(weights, 8, 3 * WIDTH // CFG.cols, CFG))
    qkv = Command(Opcode.LINEAR, {"groups": 3 * groups(), "tiles": 3 * WIDTH // CFG.cols, "n_in": 8, "order": Order.TILES, "dst": 1,
                                  "sink": Sink.QKV, "attn_groups": groups(), "kv_base": 8, "level": level, "neuron": kind, "first": 1})
    heads, head = 2, WIDTH // 2
    kept, position, last = [], 5, 8
    for at in [p for p in range(9) if p != position] + [position]:
        m.spikes[0, :8] = x = rng.integers(-1, 2, 8)
        got = m.execute(0, qkv, Place(position=at, slot=at))
        parts = [neuron_step(int(kind), (x @ weights)[part], 0, base[part], step[part], levels=most)[0]
                 for part, most in ((slice(0, 2 * WIDTH), 1), (slice(2 * WIDTH, 3 * WIDTH), level))]
        assert (got == np.concatenate(parts)).all()
        kept.append((at, got.reshape(3, heads, head)))
    query = kept[-1][1][0]
    order = sorted(kept)[:last + 1 if bidirectional else position + 1]
    keys, values = (np.stack([it[i] for _, it in order]) for i in (1, 2))
    raw, distance = raw_scores(query, keys), np.abs(np.arange(len(keys)) - position)
    recency, shifts, eligible = [1, RECENCY_OFF] if attention == Attention.WTA else [2, 0], [0, 2, 3], np.ones(len(keys), bool)
    attend = Command(Opcode.ATTEND, {
        "groups": groups(), "params": 3 * groups(), "level": 1, "a_kv_base": 8, "head_level": (head // CFG.segment).bit_length() - 1,
        "top_k": 3, "attention": attention, "bidirectional": bidirectional, "recency": recency[0] | recency[1] << 4, "dst": 1,
        "gather_shifts": sum((3 - s) << (3 * rank) for rank, s in enumerate(shifts))})
    m.execute(1, attend, Place(position=position, last_position=last, slot=position))
    if attention == Attention.WTA:
        expected = gather(values, winners(biased_scores(raw, distance, recency), np.broadcast_to(eligible, raw.shape), 3), shifts)
    elif attention == Attention.SFSA:
        expected = sfsa_gather(values, raw, eligible, recency)
    else:
        expected = ssa_gather(values, raw, eligible)
    assert (m.dump(Command(Opcode.DUMP, {"d_buffer": Buffer.GATHER, "groups": groups()}), Place()) == expected.reshape(-1)).all()
    assert m.counters["winners"] == {Attention.WTA: 6, Attention.SFSA: (raw >= np.array(recency)[:, None]).sum(),
                                     Attention.SSA: np.count_nonzero(raw)}[attention]
