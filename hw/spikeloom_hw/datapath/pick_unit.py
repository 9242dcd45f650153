"""From logits to the next token: greedy, or by Gumbel noise over the best k or over all."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from spikeloom.arch.config import NOISE_ENTRIES, NOISE_WIDTH, AcceleratorConfig, bits_for

from ..storage.window_memory import WindowMemory
from .comparator_tree import ComparatorTree
from .sampler import Hash32

#: Bits of a token id.
ID_WIDTH = 16
#: Comparators of the tree between two registers.
LEVELS_PER_STAGE = 2


class PickUnit(wiring.Component):
    """Keeps the logits of one token, knows the largest while they are written, and picks the next token.

    Greedy costs no pass over the logits. Sampling over the best k makes k - 1 passes, each of which finds the best logit
    below the one before by the same comparator tree; sampling over all looks at one id per cycle. Ids from `vocabulary`
    on do not exist. Logits stay until they are written again, so that several picks of the same logits are possible.

    It has no temperature: that is in the noise. It does not know when a text ends.

    Parameters
    ----------
    cfg : AcceleratorConfig
        Shape of the machine.

    Members
    -------
    clear : In(1)
        Before the first logits of a token, at the latest in the cycle before.
    vocabulary : In(16)
        Number of ids, at least 1. Static from the first logits until `done`.
    w_en : In(1)
        Write a group of logits. Not while `busy`, each group once after `clear`, in any order.
    w_group : In(range(max_vocabulary // lanes))
        Ids w_group * lanes and following.
    w_values : In(lanes * acc_width)
        Their logits, signed, the lowest id lowest.
    noise_index, noise_index_strobe : In(16), In(1)
        Sets where the next noise entry goes.
    noise_data, noise_data_strobe : In(NOISE_WIDTH), In(1)
        Writes a noise entry, signed, and advances the index. Not while `busy`.
    start : In(1)
        Pick, while not `busy`, from the cycle after the last logits on. The fields below are taken in this cycle.
    sample : In(1)
        Add noise; else greedy.
    top_k : In(4)
        Sampling: 1..8 best logits compete; 0: all.
    seed : In(32)
        Of the noise.
    position : In(16)
        Of the token, which makes noise differ along a text.
    target : In(16)
        An id below `vocabulary` whose logit is wanted, for scoring a given text; else 0.
    busy : Out(1)
        From the cycle after `start` to the one before `done`.
    done : Out(1)
        One cycle: the results below are complete; they stay until the next `start`, the best ones until `clear`.
    token : Out(16)
        The picked token.
    token_logit : Out(signed(acc_width))
        Its logit, without noise.
    best_id : Out(16)
        The largest logit's id; the lowest of equals.
    best_logit : Out(signed(acc_width))
        The largest logit.
    target_logit : Out(signed(acc_width))
        Logit of `target`.
    d_group : In(range(max_vocabulary // lanes))
        Group of logits to look at, while not `busy` and not in the cycle of `start`.
    d_values : Out(lanes * acc_width)
        Its logits, in the next cycle.

    Latency
    -------
    Logits reach `best_id` after `write_latency` cycles. From `start` to `done`: see `pick_latency`.

    Reference
    ---------
    `arch.numerics.pick`.
    """

    def __init__(self, *, cfg: AcceleratorConfig):
        if cfg.max_vocabulary > 1 << ID_WIDTH:
            raise ValueError(f"Token ids have {ID_WIDTH} bits; max_vocabulary is {cfg.max_vocabulary}.")
        self.cfg = cfg
        self.groups = cfg.max_vocabulary // cfg.lanes
        self.group_width = bits_for(self.groups - 1)
        self.lane_bits = exact_log2(cfg.lanes)
        #: Noise is added in this width.
        self.sum_width = max(cfg.acc_width, NOISE_WIDTH) + 1
        #: A logit with its sign bit inverted, below a valid bit: larger is better unsigned.
        self.key_layout = data.StructLayout({"logit": cfg.acc_width, "valid": 1})
        self.tree_latency = ComparatorTree.latency_of(n=cfg.lanes, levels_per_stage=LEVELS_PER_STAGE)
        super().__init__({
            "clear": In(1),
            "vocabulary": In(ID_WIDTH),
            "w_en": In(1),
            "w_group": In(self.group_width),
            "w_values": In(cfg.lanes * cfg.acc_width),
            "noise_index": In(16),
            "noise_index_strobe": In(1),
            "noise_data": In(NOISE_WIDTH),
            "noise_data_strobe": In(1),
            "start": In(1),
            "sample": In(1),
            "top_k": In(4),
            "seed": In(32),
            "position": In(16),
            "target": In(ID_WIDTH),
            "busy": Out(1),
            "done": Out(1),
            "token": Out(ID_WIDTH),
            "token_logit": Out(signed(cfg.acc_width)),
            "best_id": Out(ID_WIDTH),
            "best_logit": Out(signed(cfg.acc_width)),
            "target_logit": Out(signed(cfg.acc_width)),
            "d_group": In(self.group_width),
            "d_values": Out(cfg.lanes * cfg.acc_width),
        })

    @property
    def write_latency(self) -> int:
        """Cycles from logits at the write port to `best_id`: masked keys, tree, running best."""
        return 1 + self.tree_latency + 1

    @property
    def noise_latency(self) -> int:
        """Cycles from a candidate to its place among the noisy ones: hash, table, sum, comparison."""
        return Hash32.latency + WindowMemory.latency + 2

    def pick_latency(self, *, vocabulary: int, sample: bool = False, top_k: int = 1) -> int:
        """Cycles from `start` to `done`; up to `write_latency - 1` more right behind the last logits."""
        if not sample:
            return 2
        first = 2 + 2 * Hash32.latency
        if top_k == 0:
            return first + vocabulary + self.noise_latency + 1
        one_pass = (vocabulary - 1) // self.cfg.lanes + 1 + self.write_latency + 1
        if top_k <= vocabulary:
            return first + (top_k - 1) * one_pass + self.noise_latency + 1
        return first + vocabulary * one_pass + max(2, self.noise_latency + 1 - one_pass)

    def elaborate(self, platform):
        m = Module()
        self._build_signals()
        self._build_buffer(m)
        self._build_keys(m)
        self._build_best(m)
        self._build_noise(m)
        self._build_control(m)
        return m

    def _build_signals(self):
        """What the parts below share."""
        self._read_en, self._read_group = Signal(), Signal(self.group_width)
        self._read_values = Signal(self.cfg.lanes * self.cfg.acc_width)
        self._lane, self._lane_logit = Signal(self.lane_bits), Signal(signed(self.cfg.acc_width))
        # A pass: its groups a cycle after they were asked for, the candidate before, and the one that it finds.
        self._pass_valid, self._pass_group = Signal(), Signal(self.group_width)
        self._before = Signal(self._candidate_layout)
        self._found, self._found_clear = Signal(self._candidate_layout), Signal()
        self._best = Signal(self._candidate_layout)
        # Candidates that get noise, and the best of them.
        self._noisy_valid, self._noisy_id = Signal(), Signal(ID_WIDTH)
        self._noisy_logit = Signal(signed(self.cfg.acc_width))
        self._hash_in, self._hash_out, self._hash_stream = Signal(32), Signal(32), Signal(32)
        self._chosen_id, self._chosen_logit = Signal(ID_WIDTH), Signal(signed(self.cfg.acc_width))
        self._chosen_clear = Signal()
        # Work under way.
        self._writes_under_way, self._pass_under_way, self._noise_under_way = Signal(), Signal(), Signal()

    @property
    def _candidate_layout(self):
        return data.StructLayout({"id": ID_WIDTH, "key": self.key_layout})

    def _build_buffer(self, m):
        cfg = self.cfg
        width = cfg.acc_width
        m.submodules.logits = store = memory.Memory(shape=cfg.lanes * width, depth=self.groups, init=[])
        write, read = store.write_port(), store.read_port()
        m.d.comb += [
            write.en.eq(self.w_en),
            write.addr.eq(self.w_group),
            write.data.eq(self.w_values),
            read.en.eq(self._read_en),
            read.addr.eq(self._read_group),
            self._read_values.eq(read.data),
            self.d_values.eq(read.data),
        ]
        with m.Switch(self._lane):
            for lane in range(cfg.lanes):
                with m.Case(lane):
                    m.d.comb += self._lane_logit.eq(read.data[lane * width:(lane + 1) * width].as_signed())

    def _build_keys(self, m):
        """Keys of a group: written logits that exist, or logits of a pass that come after the candidate before."""
        cfg = self.cfg
        values, group = Signal(cfg.lanes * cfg.acc_width), Signal(self.group_width)
        whole, part, later, same = Signal(), Signal(), Signal(), Signal()
        self._keys = Signal(data.ArrayLayout(self.key_layout, cfg.lanes))
        self._keys_group = Signal(self.group_width)
        before_lane = self._before.id[:self.lane_bits]
        before_group = self._before.id[self.lane_bits:]
        m.d.comb += [
            values.eq(Mux(self._pass_valid, self._read_values, self.w_values)),
            group.eq(Mux(self._pass_valid, self._pass_group, self.w_group)),
            whole.eq(group < self.vocabulary[self.lane_bits:]),
            part.eq(group == self.vocabulary[self.lane_bits:]),
            later.eq(self._pass_group > before_group),
            same.eq(self._pass_group == before_group),
        ]
        m.d.sync += self._keys_group.eq(group)
        for lane in range(cfg.lanes):
            logit = values[lane * cfg.acc_width:(lane + 1) * cfg.acc_width]
            number, read = Signal(cfg.acc_width, name=f"number_{lane}"), Signal(cfg.acc_width, name=f"read_{lane}")
            exists, after = Signal(name=f"exists_{lane}"), Signal(name=f"after_{lane}")
            m.d.comb += [
                number.eq(_invert_sign(logit)),
                read.eq(_invert_sign(self._read_values[lane * cfg.acc_width:(lane + 1) * cfg.acc_width])),
                exists.eq(whole | (part & (self.vocabulary[:self.lane_bits] > lane))),
                after.eq((read < self._before.key.logit)
                         | ((read == self._before.key.logit) & (later | (same & (before_lane < lane))))),
            ]
            m.d.sync += [
                self._keys[lane].logit.eq(number),
                self._keys[lane].valid.eq(exists & (after | ~self._pass_valid)),
            ]

    def _build_best(self, m):
        """Tree over the lanes, and the best so far: of all writes since `clear`, and of a pass."""
        m.submodules.tree = tree = ComparatorTree(key=self.key_layout, n=self.cfg.lanes, levels_per_stage=LEVELS_PER_STAGE)
        stages = 1 + self.tree_latency
        written, passed = Signal(stages), Signal(stages)
        group = self._keys_group
        for stage in range(self.tree_latency):
            after = Signal(self.group_width, name=f"tree_group_{stage}")
            m.d.sync += after.eq(group)
            group = after
        newcomer = Signal(self._candidate_layout)
        m.d.comb += [
            tree.i.eq(self._keys),
            newcomer.key.eq(tree.o),
            newcomer.id.eq(Cat(tree.o_index[:self.lane_bits], group)),
            self._writes_under_way.eq(written.any()),
            self._pass_under_way.eq(self._pass_valid | passed.any()),
            self.best_id.eq(self._best.id),
            self.best_logit.eq(_invert_sign(self._best.key.logit)),
        ]
        m.d.sync += [written.eq(Cat(self.w_en, written)), passed.eq(Cat(self._pass_valid, passed))]
        with m.If(self.clear):
            m.d.sync += written.eq(0)
        for best, valid, clear in ((self._best, written[-1], self.clear), (self._found, passed[-1], self._found_clear)):
            first = (newcomer.key == best.key) & (newcomer.id < best.id)
            with m.If(valid & newcomer.key.valid & (~best.key.valid | (Value.cast(newcomer.key) > Value.cast(best.key)) | first)):
                m.d.sync += best.eq(newcomer)
            with m.If(clear):
                m.d.sync += best.key.valid.eq(0)

    def _build_noise(self, m):
        """Hash of the candidate, its noise, the sum, and the largest sum so far."""
        m.submodules.hash = hash32 = Hash32()
        m.submodules.noise = noise = WindowMemory(depth=NOISE_ENTRIES, part_width=NOISE_WIDTH)
        m.d.comb += [
            hash32.i.eq(self._hash_in),
            self._hash_out.eq(hash32.o),
            noise.index.eq(self.noise_index),
            noise.index_strobe.eq(self.noise_index_strobe),
            noise.data.eq(self.noise_data),
            noise.data_strobe.eq(self.noise_data_strobe),
            noise.address.eq(hash32.o[32 - exact_log2(NOISE_ENTRIES):]),
        ]
        stages = Hash32.latency + WindowMemory.latency + 1
        valid = Signal(stages)
        m.d.sync += valid.eq(Cat(self._noisy_valid, valid))
        token, logit = self._noisy_id, self._noisy_logit
        for stage in range(1, stages + 1):
            earlier = logit
            token_after = Signal(ID_WIDTH, name=f"noisy_id_{stage}")
            logit_after = Signal(signed(self.cfg.acc_width), name=f"noisy_logit_{stage}")
            m.d.sync += [token_after.eq(token), logit_after.eq(logit)]
            token, logit = token_after, logit_after
        total, largest = Signal(signed(self.sum_width)), Signal(signed(self.sum_width))
        chosen = Signal()
        m.d.sync += total.eq(earlier + noise.o_data.as_signed())
        m.d.comb += self._noise_under_way.eq(self._noisy_valid | valid.any())
        with m.If(valid[-1] & (~chosen | (total > largest) | ((total == largest) & (token < self._chosen_id)))):
            m.d.sync += [chosen.eq(1), largest.eq(total), self._chosen_id.eq(token), self._chosen_logit.eq(logit)]
        with m.If(self._chosen_clear):
            m.d.sync += chosen.eq(0)

    def _build_control(self, m):
        """WAIT, TARGET and best, hash of POSITION and SEED; then FIRST, PASS, JUDGE or ALL; LAST noise."""
        sample, top_k = Signal(), Signal(4)
        seed, position, lane = Signal(32), Signal(16), Signal(self.lane_bits)
        step = Signal(range(Hash32.latency))
        hashed = Signal()
        group, token = Signal(self.group_width), Signal(ID_WIDTH)
        token_1, token_valid = Signal(ID_WIDTH), Signal()
        last_id = Signal(ID_WIDTH)

        m.d.comb += [
            hashed.eq(step == Hash32.latency - 1),
            last_id.eq(self.vocabulary - 1),
            self._hash_in.eq(self._hash_stream ^ self._noisy_id),
            self._lane.eq(token_1[:self.lane_bits]),
            self._noisy_valid.eq(token_valid),
            self._noisy_id.eq(token_1),
            self._noisy_logit.eq(self._lane_logit),
        ]
        m.d.sync += [
            self.done.eq(0),
            self._pass_valid.eq(0),
            self._pass_group.eq(group),
            token_valid.eq(0),
            token_1.eq(token),
            step.eq(Mux(hashed, 0, step + 1)),
        ]

        def give(candidate):
            """Send a candidate for its noise, and look for the ones after it."""
            m.d.comb += [
                self._noisy_valid.eq(1),
                self._noisy_id.eq(candidate.id),
                self._noisy_logit.eq(_invert_sign(candidate.key.logit).as_signed()),
                self._found_clear.eq(1),
            ]
            m.d.sync += [self._before.eq(candidate), top_k.eq(top_k - 1), group.eq(0)]
            with m.If(top_k == 1):
                m.next = "LAST"
            with m.Else():
                m.next = "PASS"

        def finish(token, logit):
            m.d.sync += [self.token.eq(token), self.token_logit.eq(logit), self.done.eq(1), self.busy.eq(0)]
            m.next = "WAIT"

        with m.FSM():
            with m.State("WAIT"):
                m.d.comb += [
                    self._read_en.eq(1),
                    self._read_group.eq(Mux(self.start, self.target[self.lane_bits:], self.d_group)),
                ]
                with m.If(self.start):
                    m.d.sync += [
                        sample.eq(self.sample),
                        top_k.eq(self.top_k),
                        seed.eq(self.seed),
                        position.eq(self.position),
                        lane.eq(self.target[:self.lane_bits]),
                        self.busy.eq(1),
                    ]
                    m.next = "TARGET"
            with m.State("TARGET"):
                m.d.comb += [self._lane.eq(lane), self._hash_in.eq(position), self._chosen_clear.eq(1)]
                m.d.sync += [self.target_logit.eq(self._lane_logit), step.eq(0)]
                with m.If(~self._writes_under_way):
                    with m.If(sample):
                        m.next = "POSITION"
                    with m.Else():
                        finish(self.best_id, self.best_logit)
            with m.State("POSITION"):
                m.d.comb += self._hash_in.eq(seed ^ self._hash_out)
                with m.If(hashed):
                    m.next = "SEED"
            with m.State("SEED"):
                m.d.sync += [self._hash_stream.eq(self._hash_out), token.eq(0)]
                with m.If(hashed):
                    m.next = "FIRST"
                    with m.If(top_k == 0):
                        m.next = "ALL"
            with m.State("FIRST"):
                give(self._best)
            with m.State("PASS"):
                m.d.comb += [self._read_en.eq(1), self._read_group.eq(group)]
                m.d.sync += [self._pass_valid.eq(1), group.eq(group + 1)]
                with m.If(group == last_id[self.lane_bits:]):
                    m.next = "JUDGE"
            with m.State("JUDGE"):
                with m.If(~self._pass_under_way):
                    with m.If(self._found.key.valid):
                        give(self._found)
                    with m.Else():
                        m.next = "LAST"
            with m.State("ALL"):
                m.d.comb += [self._read_en.eq(1), self._read_group.eq(token[self.lane_bits:])]
                m.d.sync += [token_valid.eq(1), token.eq(token + 1)]
                with m.If(token == last_id):
                    m.next = "LAST"
            with m.State("LAST"):
                with m.If(~self._noise_under_way):
                    finish(self._chosen_id, self._chosen_logit)


def _invert_sign(value):
    """Between signed order and unsigned order."""
    return Cat(value[:-1], ~value[-1])
