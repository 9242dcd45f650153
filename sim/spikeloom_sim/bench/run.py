"""`spikeloom bench`: measures, writes `results/bench.json` and `docs/performance.md`."""

import contextlib
import hashlib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from spikeloom.arch.presets import preset
from spikeloom.model import quality_page, store

from ..versions import versions
from . import page
from .boards import BLOCKS, BOARDS, PROMPT
from .figures import DETAILS, RESULT, Figure, entry, load, merge
from .keys import GOALS
from .measures import LARGEST, MODEL, Measures
from .processor import UnknownProcessor

AREA, ROUTE, STREAMED = Path("results/area.json"), Path("results/route.json"), Path("results/streamed.json")
#: How far a released model may be behind its twin, and dense mode above its bound, for its skips to count.
MOST_BEHIND, MOST_DENSE = 0.05, 1.10

#: What is told of a run of streamed rows.
_OF_A_RUN = ("ports", "dense", "latency", "outstanding", "stream_peak_fraction", "stream_peak_fraction_with_first_beat",
             "streamed_over_bound", "cycles_per_token", "bytes_per_token", "first_beat_latency", "prediction_error", "mismatches")


def enough_open(run: Mapping) -> bool:
    """Whether the reads that a run's memory has open, bursts of 16 beats at most, cover its latency and half of it again."""
    return 16 * run["outstanding"] >= 1.5 * run["latency"]


class Figures:
    """Makes the figure of each key from the measurements.

    Parameters
    ----------
    measures : Measures
    root : path
        Of the checkout, for the results of synthesis and routing.
    """

    def __init__(self, measures: Measures, root: Path = Path()):
        self.m, self.root = measures, root

    def figure(self, key: str) -> Figure | None:
        """The figure of a key; None where what it is read from was never made."""
        return getattr(self, key)()

    # -- stories ----------------------------------------------------------------------------------------------

    def cycles_per_token_260k(self):
        _, tally = self.m.resident
        beside = {"event_bound": round(tally.bound_per_token, 1), "cycles_not_predicted": abs(tally.counted - tally.predicted),
                  "mismatches": tally.mismatches, "compared": tally.compared}
        return Figure(round(tally.cycles_per_token, 1), beside, self.m.of())

    def over_event_bound(self):
        released = self.m.released
        ratios = {name: round(record["over_event_bound"], 4) for name, record in released.items() if "left_out" not in record}
        worst = max(ratios, key=ratios.get)
        events = self.m.machine_of(worst).events
        beside = {"model": worst, "by_model": ratios, "resident_rows_added_per_cycle": events,
                  "preset": {name: released[name]["preset"] for name in ratios},
                  "over_the_bound_of_this_machine": {name: round(released[name]["over_machine_bound"], 4) for name in ratios}}
        left = {name: record["left_out"] for name, record in released.items() if "left_out" in record}
        if left:
            beside["left_out"] = left
        return Figure(ratios[worst], beside, self.m.of(worst), note="" if events == 1 else
                      f"The bound counts one row per cycle; this machine adds {events} resident rows per cycle.")

    def skip_exploited(self):
        shares = {name: record["rows_skipped"] / record["rows_silent"] for name, record in self.m.released.items()
                  if record.get("rows_silent")}
        _, tally = self.m.resident
        beside = {"by_model": {name: round(share, 4) for name, share in shares.items()},
                  "rows_that_spoke": {MODEL: round(tally.spoke / (tally.spoke + tally.silent), 4)}}
        return Figure(round(min(shares.values()), 4), beside, self.m.of())

    @cached_property
    def behind(self) -> dict[str, float]:
        """Nats per token by which released decoders are behind their softmax twins, the closest first."""
        gaps = {row["model"]: round(row["gap_nats"], 4) for row in quality_page.released(self.root / RESULT.parent)}
        return dict(sorted(((name, gap) for name, gap in gaps.items() if name in store.available()), key=lambda pair: pair[1]))

    def skips_of(self, name: str) -> dict[str, dict]:
        """Dense mode beside sparse, of one model on one machine: rows resident; and streamed, where dense mode is slow with those."""
        peak, found = self.m.machine_of(name).bus_bytes, {}
        for way, tally, bus in (("resident", self.m.sparse, math.inf), ("streamed", self.m.from_dram, peak)):
            sparse = tally(name)
            dense = self.m.dense(name) if way == "resident" else tally(name, dense=True)
            found[way] = {
                "dense_over_sparse_cycles": round(dense.cycles / sparse.cycles, 3),
                "dense_over_sparse_bytes": round(dense.row_bytes / sparse.row_bytes, 3),
                "dense_over_its_own_bound": round(dense.cycles / max(dense.adding, dense.row_bytes / bus), 4),
                "sparse": {"cycles_per_token": round(sparse.cycles_per_token, 1), "bytes_per_token": round(sparse.bytes_per_token, 1)},
                "dense": {"cycles_per_token": round(dense.cycles_per_token, 1), "bytes_per_token": round(dense.bytes_per_token, 1)},
                "rows_that_spoke": round(sparse.spoke / (sparse.spoke + sparse.silent), 4),
                "mismatches": sparse.mismatches + dense.mismatches,
            }
            if found[way]["dense_over_its_own_bound"] <= MOST_DENSE:
                break
        return found

    def _dense_over_sparse(self, key):
        """Of the model closest to its twin, and the largest one beside it."""
        name = next(iter(self.behind), LARGEST)
        models = {model: self.skips_of(model) for model in dict.fromkeys((name, LARGEST))}
        way, chosen = list(models[name].items())[-1]
        behind = self.behind.get(name, math.inf)
        others = [f"`{model}` ({self.behind.get(model, math.inf):.3f} behind), rows {other}: {found[key]:.2f}, dense mode at "
                  f"{found['dense_over_its_own_bound']:.2f} of its bound"
                  for model, ways in models.items() for other, found in ways.items() if found is not chosen]
        return Figure(chosen[key], {"model": name, "rows": way, "nats_behind_its_softmax_twin": self.behind, "by_model": models},
                      self.m.of(name), counts=behind <= MOST_BEHIND and chosen["dense_over_its_own_bound"] <= MOST_DENSE,
                      note=f"`{name}` ({behind:.3f} nats behind its twin), rows {way}. Beside it: {'; '.join(others)}.")

    def dense_over_sparse_cycles(self):
        return self._dense_over_sparse("dense_over_sparse_cycles")

    def dense_over_sparse_bytes(self):
        return self._dense_over_sparse("dense_over_sparse_bytes")

    # -- streaming --------------------------------------------------------------------------------------------

    def stream_peak_fraction(self):
        return self._of_streamed_runs("stream_peak_fraction", min, dense=(False, True))

    def streamed_over_bound(self):
        return self._of_streamed_runs("streamed_over_bound", max, dense=(False,))

    def _of_streamed_runs(self, key, worst, dense):
        """The worst run of `spikeloom_sim.streamed`, of those whose memory has reads enough open for its latency."""
        record = load(self.root / STREAMED)
        runs = {name: run for name, run in record.items() if isinstance(run, dict) and key in run and run["dense"] in dense}
        counted = [run[key] for run in runs.values() if enough_open(run)]
        if not counted:
            return None
        left = ", ".join(f"{run[key]:.3f} with {run['ports']} port{'s' * (run['ports'] > 1)}, {run['latency']} cycles and "
                         f"{run['outstanding']} reads open" for run in runs.values() if not enough_open(run))
        beside = {name: {part: run[part] for part in _OF_A_RUN} for name, run in runs.items()}
        return Figure(worst(counted), beside,
                      {"file": STREAMED.as_posix(), "made_by": record["command"], "machine": record["machine"], "memory": record["memory"]},
                      note=f"Not counted, since so few reads do not cover the latency: {left}." if left else "")

    def prefill_over_decode(self):
        record = self.m.prefill
        block = BLOCKS[0]
        beside = {"block": block, "prompt": PROMPT, "decode_cycles_per_token": round(record["decode"]),
                  "by_block": {str(size): figures for size, figures in record["blocks"].items()}}
        own, on_gateware = record["with_page_misses_and_refresh"], load(self.root / STREAMED).get("prefill_2_ports")
        beside["with_page_misses_and_refresh"] = own
        note = ("Both at 75% of the DRAM's peak; faster memory speeds writing up, and reading hardly: with the DRAM model of the streamed "
                f"runs in its place the ratio is {own['prefill_over_decode']:.2f} [model]")
        if on_gateware:
            note += f", and that of a random network {on_gateware['prefill_over_decode']:.2f} [sim]"
            beside["random_network_on_the_gateware"] = {"file": STREAMED.as_posix()} | {name: on_gateware[name] for name in (
                "evidence", "block", "prompt", "cycles_per_token", "prefill_over_decode", "prediction_error", "mismatches")}
        return Figure(record["blocks"][block]["prefill_over_decode"], beside, {"firing_rates_of": self.m.model_identity(LARGEST)},
                      note=f"{note}. Thresholds, keys and values are on chip, as preset d288 has them.")

    def bytes_per_token_by_bits(self):
        points = self.m.formats
        rows = [point["bytes_counted"] for point in points]
        beside = {f"{point['weight_bits']}-bit": {name: point[name] for name in ("bytes_per_token", "cycles_per_token", "mismatches")}
                  for point in points}
        return Figure([round(value / rows[0], 4) for value in rows], beside, {"machine": self.m.machine_identity, "rows": "streamed"})

    # -- boards -----------------------------------------------------------------------------------------------

    def tok_s_d288_z2(self):
        return self._board("d288")

    def tok_s_d768_kv260(self):
        return self._board("d768")

    def _board(self, shape):
        record = self.m.board(shape)
        return Figure(record["sparse"]["tokens_per_second"], record, {"firing_rates_of": self.m.model_identity(LARGEST)},
                      note=record["built"])

    def fmax_mhz_ecp5(self):
        record = load(self.root / ROUTE)
        if not record:
            return None
        from spikeloom_hw.boards import ulx3s_route
        now = hashlib.sha256(ulx3s_route.verilog().encode()).hexdigest()
        figure = record["fmax_mhz_ecp5"]
        beside = {name: record[name] for name in ("differs_from_sim", "slowest_paths", "used") if name in record}
        of = {"verilog_sha256": record["verilog_sha256"], "verilog_of_now": now, "file": ROUTE.as_posix(), "made_by": figure["command"]}
        return Figure(figure["value"], beside, of, note=figure["what"] + ".", stale=now != record["verilog_sha256"])

    def z2_lut_fraction(self):
        return self._area("z2_lut_fraction")

    def z2_bram_fraction(self):
        return self._area("z2_bram_fraction")

    def z2_multipliers(self):
        return self._area("z2_multipliers")

    def _area(self, key):
        record = load(self.root / AREA)
        if key not in record:
            return None
        from spikeloom_hw.boards.core import export_core
        if not hasattr(self, "_z2"):
            with tempfile.TemporaryDirectory() as folder:
                self._z2 = export_core(preset("pynq_z2"), Path(folder)).sha256
        return Figure(record[key], of={"verilog_sha256": record["verilog_sha256"], "verilog_of_now": self._z2, "file": AREA.as_posix(),
                                       "made_by": "make area"}, stale=self._z2 != record["verilog_sha256"])

    # -- simulator and processor ------------------------------------------------------------------------------

    def sim_tokens_per_s(self):
        speed = self.m.speed
        return Figure(speed["tokens_per_second"], speed, self.m.of(),
                      note="Two devices, one per core, each writing a story; tokens per processor second, added up: by the clock where the "
                           "cores are free.")

    def sim_cycles_per_cpu_s(self):
        return Figure(self.m.speed["cycles_per_cpu_second"], of=self.m.of())

    def cpu_baseline(self):
        record = self.m.processor
        value = next(iter(record["boards"].values()))["one_core"]
        return Figure(value, record, self.m.model_identity() | {"source": "sim/spikeloom_sim/bench/decode.c"}, note=(
            "Compiled at run time, one sequence per core, timed in processor seconds, logits equal to the integer model's; the boards' "
            "figures are those of x86 over the ratio of CoreMark per core (spikeloom_sim.bench.processor). Not run on a board."))


def parts(measures: Measures) -> dict[str, Callable[[], object]]:
    """Tables behind the page, by name."""
    m = measures
    return {
        "model": m.of, "versions": versions,
        "machine": lambda: {"columns": m.cfg.cols, "events": m.cfg.events, "bus_bytes": m.cfg.bus_bytes},
        "resident": lambda: m.resident[1].summary(), "dense": lambda: m.dense().summary(),
        "generation": lambda: {name: getattr(m.generation, name) for name in ("compared", "mismatches", "first")},
        "released": lambda: m.released, "rates": lambda: {kind: round(float(rate), 4) for kind, rate in m.rates.items()},
        "ladder": lambda: m.ladder, "token": lambda: m.picture, "sweep": lambda: m.sweep,
        "streamed": lambda: {str(latency): tally.summary() for latency, tally in m.streamed.items()},
        "formats": lambda: m.formats, "processor": lambda: m.processor,
        **{f"layer_{board.shape.name}": lambda board=board: m.layer(board.shape.name) for board in BOARDS},
    }


def run(measures: Measures, *, keys: Sequence[str] = (), root: Path = Path(), say: Callable[[str], None] = print) -> dict:
    """Measure some keys or tables, or all of them; write each as it is made, and the page; return the figures by key.

    Raises
    ------
    ValueError
        For an unknown key.
    """
    tables = parts(measures)
    unknown = sorted(set(keys) - set(GOALS) - set(tables))
    if unknown:
        raise ValueError(f"There are no keys {', '.join(unknown)}; there are: {', '.join(GOALS)}; and tables: {', '.join(tables)}.")
    figures, entries = Figures(measures, root), {}
    for key in [key for key in GOALS if key in keys or not keys]:
        with _leaving_what_is_on_file(key, say):
            figure = figures.figure(key)
            if figure is None:
                say(f"{key}: never measured")
                continue
            entries[key] = entry(GOALS[key], figure, f"spikeloom bench --only {key}")
            merge(root / RESULT, entries, list(GOALS))
            say(line(key, entries[key]))
    for name in [name for name in tables if name in keys or not keys]:
        with _leaving_what_is_on_file(f"table {name}", say):
            merge(root / DETAILS, {name: tables[name]()}, list(tables))
            say(f"table {name}")
    page.write(root)
    return entries


@contextlib.contextmanager
def _leaving_what_is_on_file(what, say):
    """Where this computer cannot measure it."""
    try:
        yield
    except UnknownProcessor as error:
        say(f"{what}: what is on file stays. {error}")


def line(key: str, record: dict) -> str:
    """One figure in words."""
    verdict = {True: "met", False: "missed", None: "given"}[record["met"]] + (", STALE" if record.get("stale") else "")
    return f"{key}: {record['value']} {record['unit']} {record['evidence']}, goal {record['goal'] or 'none'}: {verdict}"
