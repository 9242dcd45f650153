"""One channel of the neuron unit: thresholds, membrane, residual."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from spikeloom.arch.config import LEAK_OFF, MEMBRANE_WIDTH, RESIDUAL_WIDTH, THRESHOLD_FRACTION, AcceleratorConfig
from spikeloom.arch.numerics import RESIDUAL_MAX, RESIDUAL_MIN

from ..lib.arith import carry_save, shift_right
from ..storage.parameter_table import parameter_layout

#: Largest shift of a value that is set or of a spike that is added.
MAX_EMBED_SHIFT = THRESHOLD_FRACTION


def mode_layout() -> data.StructLayout:
    """What a pass does with its values, told apart once for all lanes; passes follow one another in the pipeline."""
    return data.StructLayout({
        "spiking": 1,      # the sum over its threshold, against multiples of step
        "set": 1,          # no base; shifted to value << embed_shift
        "whole": 1,        # the sum as it is; otherwise shifted, added to the residual and clipped
        "add": 1,          # the result is the residual plus the spike, one cycle later
        "remember": 1,     # the membrane counts; otherwise it is zero
        "both": 1,         # levels of both signs (SIGNED_NI_LIF)
        "ternary": 1, "hard": 1, "subtract": 1, "half": 1,  # T_LIF, LIF_HARD, LIF_SUBTRACT, I_LIF
        "leak": 4, "embed_shift": 4,
    })


class NeuronLane(wiring.Component):
    """Makes a spike and a membrane, a residual word, or a logit of one integer.

    One adder makes the sum, with the threshold taken away or the bias added. A second one makes what is left of it after
    four steps (or tells whether the negative threshold is reached), a third one what is left below zero, so that three
    comparisons count up to eight levels of either sign.

    Parameters
    ----------
    cfg : AcceleratorConfig

    Members
    -------
    mode_1, mode_2, mode_3, mode_4 : In(mode_layout())
        Of the value now, and of those one, two and three cycles ago; `add` only where there was a value.
    level : In(4)
        Largest level, a cycle after its value.
    term : In(signed(acc_width + 8))
        The value: as it is where a bias is added, value 2^F with `set`, minus (value 2^F + 1) where spikes are made.
    old : In(signed(16))
        Residual word.
    membrane : In(signed(32))
    record : In(parameter_layout())
        All of the same cycle.
    o_result : Out(signed(acc_width))
        What the pass makes: spike, residual word or logit; two cycles after the value, with `add` three.
    o_spike : Out(signed(level_bits + 1))
        The spike, two cycles after the value; 0 where the pass makes none.
    o_word : Out(16)
        Word for the residual store, beside `o_result`.
    o_clipped : Out(1)
        `o_result` was clipped.
    o_membrane : Out(32)
        The membrane after, four cycles after the value.

    Latency
    -------
    As above; a value per cycle.

    Reference
    ---------
    `arch.numerics.neuron_step`, `residual_add`, `add_spikes`.
    """

    #: Cycles from a value to its membrane.
    membrane_latency = 4

    def __init__(self, *, cfg: AcceleratorConfig):
        self.cfg = cfg
        #: Three terms of 32 bits and a few steps.
        self.width = max(cfg.acc_width + THRESHOLD_FRACTION, MEMBRANE_WIDTH) + 2
        super().__init__({
            **{f"mode_{stage}": In(mode_layout()) for stage in range(1, 5)}, "level": In(4),
            "term": In(signed(cfg.acc_width + THRESHOLD_FRACTION)),
            "old": In(signed(RESIDUAL_WIDTH)), "membrane": In(signed(MEMBRANE_WIDTH)), "record": In(parameter_layout()),
            "o_result": Out(signed(cfg.acc_width)), "o_spike": Out(signed(cfg.level_bits + 1)), "o_word": Out(RESIDUAL_WIDTH),
            "o_clipped": Out(1), "o_membrane": Out(MEMBRANE_WIDTH),
        })

    def elaborate(self, platform):
        m = Module()
        self._build_sum(m)
        rest, spike, left = self._build_spike(m)
        word, clipped = self._build_word(m)
        self._build_result(m, spike, word, clipped)
        adjust, drop = self._build_reset(m, left)
        self._build_membrane(m, rest, adjust, drop)
        return m

    def _build_sum(self, m):
        """First cycle: `total`, `aside` and `below`.

        With d the height of the sum above the first threshold, in steps of 2^-F: where spikes are made `total` is ~d, which
        costs no negation, `aside` is ~(d - 4 step), or with `ternary` -(d + 2 step), and `below` is ~d - 4 step.
        """
        mode, record, ternary = self.mode_1, self.record, self.mode_1.ternary
        names = "wide_term", "kept", "base", "further", "nearer"
        term, kept, base, further, nearer = (Signal(signed(self.width), name=name) for name in names)
        m.d.comb += [
            term.eq(self.term),
            kept.eq(Mux(mode.remember, ~self.membrane, 0)),
            base.eq(Mux(mode.set, 0, record.base.as_signed())),
            further.eq(Mux(ternary, ~Cat(Const(0, 1), record.step, Const(0, 1)).as_signed(), record.step << 2)),
            nearer.eq(~Cat(Const(0, 2), record.step, Const(0, 1)).as_signed()),
        ]
        saved, carried = carry_save(m, term, kept, base)
        carried = Cat(mode.remember, carried[1:])  # one more: with the inverted membrane it makes minus the membrane
        saved_aside, carried_aside = carry_save(m, saved, carried, further)
        # Two more with `ternary`, from the free lowest carry and from a place below the lowest.
        aside = Signal(self.width + 1)
        m.d.comb += aside.eq(Cat(ternary, saved_aside) + Cat(ternary, ternary, carried_aside[1:]))

        saved_below, carried_below = carry_save(m, saved, carried, nearer)
        carried_below = Cat(Const(1, 1), carried_below[1:])  # completes the negation

        self.total, self.aside, self.below = (Signal(signed(self.width), name=name) for name in ("total", "aside", "below"))
        self.step, self.triple = Signal(24), Signal(26)
        self.shift, self.old_1 = Signal(5), Signal(signed(RESIDUAL_WIDTH))
        m.d.sync += [
            self.total.eq(saved + carried.as_signed()),
            self.aside.eq(aside[1:]),
            self.below.eq(saved_below + carried_below.as_signed()),
            self.step.eq(record.step), self.triple.eq(record.step + (record.step << 1)),
            self.shift.eq(Mux(mode.set, MAX_EMBED_SHIFT - mode.embed_shift, record.shift)),
            self.old_1.eq(Mux(mode.set, 0, self.old)),
        ]

    def _build_spike(self, m):
        """Second cycle: how many of the thresholds 0, step, 2 step, ... d reaches; returns (rest of d, spike, left), the spike at once.

        Left is how many steps the rest still holds of the spike: the spike, less four where these are taken off. Below zero,
        with levels of both signs, it is ~d that is compared: it reaches 0, and each further threshold takes one from the spike.
        """
        mirrored, upper, negative, beyond = Signal(), Signal(), Signal(), Signal()
        rest = Signal(signed(self.width))
        m.d.comb += [
            mirrored.eq(self.mode_2.both & ~self.total[-1]),
            upper.eq((self.level > 4) & Mux(mirrored, ~self.below[-1], self.aside[-1])),
            rest.eq(Mux(mirrored, Mux(upper, self.below, self.total), ~Mux(upper, self.aside, self.total))),
            # Of every candidate rather than of the one chosen: the choice is late.
            negative.eq(Mux(mirrored, Mux(upper, self.below[-1], self.total[-1]), ~Mux(upper, self.aside[-1], self.total[-1]))),
            beyond.eq(Mux(mirrored, Mux(upper, *(value[26:-1].any() for value in (self.below, self.total))),
                          ~Mux(upper, *(value[26:-1].all() for value in (self.aside, self.total))))),
        ]
        reached = Signal(4)
        m.d.comb += reached.eq(Cat(self.total[-1] | mirrored, *(~negative & (beyond | (rest[:26] >= multiple))
                                                     for multiple in (self.step, self.step << 1, self.triple))))
        # Reached thresholds are the lowest ones: a thermometer, four places higher behind four steps, cut off at the largest level.
        at_least, allowed, bounded = Signal(9), Signal(8), Signal(4)
        m.d.comb += [
            allowed.eq(Cat(self.level > place for place in range(8))),
            at_least.eq(Cat(reached | upper.replicate(4), reached & upper.replicate(4)) & allowed),
        ]
        last_of = [at_least[place] & ~at_least[place + 1] for place in range(8)]
        m.d.comb += bounded.eq(Cat(Cat(last for count, last in enumerate(last_of, 1) if count >> bit & 1).any() for bit in range(4)))
        minus, spike, made = Signal(), Signal.like(self.o_spike), Signal.like(self.o_spike, name="made")
        with m.If(self.mode_2.spiking):
            with m.Switch(bounded):  # a table rather than an adder
                for value in range(1, 9):
                    with m.Case(value):
                        m.d.comb += made.eq(Mux(mirrored, 1 - value, value))
        m.d.comb += [
            minus.eq(self.mode_2.spiking & self.mode_2.ternary & ~self.aside[-1]),
            spike.eq(Mux(minus, Mux(bounded[0], 0, -1), made)),
        ]
        rest_1, left = Signal(MEMBRANE_WIDTH), Signal(3)
        m.d.sync += [rest_1.eq(rest), self.o_spike.eq(spike), left.eq(Cat(bounded[:2], bounded[2] ^ upper))]
        return rest_1, spike, left

    def _build_word(self, m):
        """Second cycle: the shifted sum, rounded half up, added to the residual; (word, was it clipped)."""
        # The bit below the lowest one rounds. A sum that needs a bit more than a residual word stays out whatever is added.
        near = RESIDUAL_WIDTH + 1
        moved, far = shift_right(m, Cat(Const(0, 1), self.total), self.shift, near + 1)
        added = Signal(signed(near + 1))
        m.d.comb += added.eq(moved[1:].as_signed() + self.old_1 + moved[0])
        return self._clip(m, added, far, self.total[-1])

    def _clip(self, m, value, far, sign):
        """A signed value, or with `far` anything of that sign, clipped to the residual's range; (word, was it clipped)."""
        word, clipped, below = Signal(signed(RESIDUAL_WIDTH)), Signal(), Signal()
        top = value[RESIDUAL_WIDTH - 1:]
        m.d.comb += [
            clipped.eq(far | (top.any() & ~top.all())),
            below.eq(Mux(far, sign, value[-1])),
            word.eq(Mux(clipped, Mux(below, RESIDUAL_MIN, RESIDUAL_MAX), value)),
        ]
        return word, clipped

    def _build_result(self, m, spike, word, clipped):
        """The result register, and (third cycle) the spike as a residual word or added to one."""
        mode = self.mode_3
        pushed, old_2, pushed_sum = (Signal(signed(width)) for width in (RESIDUAL_WIDTH, RESIDUAL_WIDTH, RESIDUAL_WIDTH + 1))
        m.d.comb += [
            # Eight is the largest shift.
            pushed.eq(Mux(mode.embed_shift[3], self.o_spike << 8, self.o_spike << mode.embed_shift[:3])),
            pushed_sum.eq(old_2 + pushed),
        ]
        m.d.sync += old_2.eq(self.old_1)
        sum_word, sum_clipped = self._clip(m, pushed_sum, Const(0, 1), Const(0, 1))
        with m.If(mode.add):
            m.d.sync += [self.o_result.eq(sum_word), self.o_clipped.eq(sum_clipped)]
        with m.Elif(self.mode_2.spiking):
            m.d.sync += [self.o_result.eq(spike), self.o_clipped.eq(0)]
        with m.Elif(self.mode_2.whole):
            m.d.sync += [self.o_result.eq(self.total), self.o_clipped.eq(0)]
        with m.Else():
            m.d.sync += [self.o_result.eq(word), self.o_clipped.eq(clipped)]
        m.d.comb += self.o_word.eq(Mux(mode.spiking & ~self.mode_4.add, pushed, self.o_result))

    def _build_reset(self, m, left):
        """Third cycle: what makes the potential after the reset of the rest, and what comes off after the leak.

        The potential before the reset lies one step above d (I_LIF: half a step).
        """
        mode, spike = self.mode_3, self.o_spike
        silent, steps = Signal(), Signal(3)
        m.d.comb += silent.eq(spike == 0)
        with m.If(mode.half):
            m.d.comb += steps.eq(left)
        with m.Elif(spike[-1]):
            m.d.comb += steps.eq(2)
        with m.Elif(silent | mode.subtract):
            m.d.comb += steps.eq(1)
        step, triple = Signal(24), Signal(26)
        m.d.sync += [step.eq(self.step), triple.eq(self.triple)]
        multiple, adjust, drop = Signal(26), Signal(29), Signal(24)
        with m.Switch(steps):
            for number, multiple_of_step in enumerate((step, step << 1, triple, step << 2), 1):
                with m.Case(number):
                    m.d.comb += multiple.eq(multiple_of_step)
        # One adder: a place below the lowest completes the negation.
        away = mode.half
        m.d.comb += [
            adjust.eq(Cat(Const(1, 1), Mux(away, step >> 1, 0)) + Cat(away, Cat(multiple, Const(0, 2)) ^ away.replicate(28))),
            drop.eq(Mux(mode.subtract & ~silent, step, 0)),
        ]
        return adjust[1:].as_signed(), drop

    def _build_membrane(self, m, rest, adjust, drop):
        """Third cycle: the potential; fourth: what comes off it; fifth: their difference."""
        mode, mode_4 = self.mode_3, self.mode_4
        potential, drop_1 = Signal(signed(MEMBRANE_WIDTH)), Signal.like(drop)
        m.d.sync += [potential.eq(rest + adjust), drop_1.eq(drop)]
        with m.If(mode.hard & (self.o_spike != 0)):
            m.d.sync += potential.eq(0)
        # The shift of the leak in two parts: up to three places, then by fours.
        held, leak, by_fours = Signal(MEMBRANE_WIDTH), Signal(signed(MEMBRANE_WIDTH)), Signal(2)
        m.d.sync += [held.eq(potential - drop_1), leak.eq(potential >> mode_4.leak[:2]), by_fours.eq(mode_4.leak[2:])]
        with m.If(mode_4.leak == LEAK_OFF):
            m.d.sync += leak.eq(0)
        m.d.comb += self.o_membrane.eq(held - (leak >> (by_fours << 2)))
