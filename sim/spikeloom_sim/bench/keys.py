"""The keys of `results/bench.json`, in order: what each stands for, its goal, and the label of its evidence."""

from .figures import Goal

GOALS = {goal.key: goal for goal in (
    Goal(key="cycles_per_token_260k", label="[sim]", sense="<=", limit=1600, unit="cycles/token",
         what="stories-260k, preset sim (64 columns), resident rows, the best token picked, mean over positions 0-127 of held-out stories "
              "(teacher forced: the story's own tokens are read)",
         short="What commands cost beside their rows (filling, draining, neuron passes, attention: the table of commands) keeps "
               "it above; fewer speaking rows or shorter drains would close it."),
    Goal(key="over_event_bound", label="[sim]", sense="<=", limit=1.20,
         what="cycles over rows that spoke x column tiles (integer model's spikes), worst released model",
         short="What commands cost beside their rows keeps it above: each LINEAR fills and drains, attention and neuron passes "
               "wait for it."),
    Goal(key="skip_exploited", label="[sim]", sense=">=", limit=0.99,
         what="rows that the machine passed over / rows that were silent, worst released model",
         short="Rows that were silent were asked for."),
    Goal(key="dense_over_sparse_cycles", label="[sim]", sense=">=", limit=2.5,
         what="dense mode over sparse, cycles of the same tokens on the same machine and image; of the released model closest to its "
              "softmax twin, rows resident, or streamed where dense mode is beyond 1.10 of its own bound with resident ones",
         short="The goal counts for a model within 0.05 nats of its softmax twin (nats_behind_its_softmax_twin) and a dense mode within "
               "1.10 of its own bound (dense_over_its_own_bound). More silent neurons at the same quality would close it "
               "(docs/quality.md)."),
    Goal(key="dense_over_sparse_bytes", label="[sim]", sense=">=", limit=2.5, what="the same, bytes of weights",
         short="As for cycles."),
    Goal(key="stream_peak_fraction", label="[sim]", sense=">=", limit=0.95,
         what="streamed d288: bytes per cycle from a command's first beat to its last over the ports' peak, DRAM with page misses and "
              "refresh; the worst of one and two ports and of 40 and 100 cycles of latency with 8 and 16 reads open",
         short="Page misses, refresh and the first beats of a command leave beats unused; the run that is worst is in `beside`."),
    Goal(key="streamed_over_bound", label="[sim]", sense="<=", limit=1.15,
         what="streamed d288, first three positions: cycles per token over max(event bound, wanted bytes / peak), the worst of the same",
         short="The first beat of each command waits for the memory (first_beat_latency in `beside`), because its rows are known "
               "only when the command before has fired."),
    Goal(key="prefill_over_decode", label="[model]", sense=">=", limit=4,
         what="streamed d288: tokens per second of reading a prompt of 128 in blocks of 16, up to the first token written, over those of "
              "writing",
         short="A block's rows are loaded once, while the sweep before runs; what is left is the adding itself, two events per cycle, "
               "and the last token of the prompt, which streams every row. More events per cycle would close it."),
    Goal(key="bytes_per_token_by_bits", label="[sim]", sense="=", limit=(1, 0.5, 0.25), unit="int8 : int4 : ternary",
         what="weight bytes per token of one network in three formats, over those of int8",
         short="Rows of the embedding stay int8."),
    Goal(key="tok_s_d288_z2", label="[model]", sense=">=", limit=1000, unit="tokens/s",
         what="d288 (6 layers, d=288, FFN 1,152, vocabulary 4,096, int4) on a PYNQ-Z2's memory at the preset's clock, an assumption, as is "
              "the machine (preset d288, not mapped for the chip)",
         short="Bound by the DRAM: all bytes of a token at 75% of 2.1 GB/s. 1,000 tokens/s leave 1.57 MB per token: thresholds "
               "kept on chip (they fit) and a model that speaks with about 40% of its row tiles, or ternary rows, would close "
               "it."),
    Goal(key="tok_s_d768_kv260", label="[model]", sense=">=", limit=500, unit="tokens/s",
         what="d768 (12 layers, d=768, FFN 3,072, vocabulary 50,000, int4) on a KV260's memory, context 512, at the preset's clock, an "
              "assumption, as is the machine (preset d768, which does not fit the chip)",
         short="Bound by the DRAM: all bytes of a token at 75% of 19.2 GB/s over four ports. 500 tokens/s leave 28.8 MB per "
               "token: a model that speaks with about 44% of its row tiles, or ternary rows, would close it; 128 columns would still "
               "be bound by the DRAM."),
    Goal(key="fmax_mhz_ecp5", label="[route]", sense=">=", limit=100, unit="MHz", exact=False,
         what="core of preset sim, lanes, lists and memories cut to the chip, routed for an ECP5-85F of speed grade 6",
         short="The slowest paths are in `beside`; registers in them, or fewer levels of logic, would close it."),
    Goal(key="z2_lut_fraction", label="[synth]", sense="<=", limit=0.50, exact=False, what="look-up tables of pynq_z2 on an XC7Z020",
         short="Counted before small tables are merged, an upper bound; the components are in results/area.json."),
    Goal(key="z2_bram_fraction", label="[synth]", sense="<=", limit=0.90, exact=False, what="block RAM of pynq_z2 on an XC7Z020",
         short="Rows kept on chip take most of it: fewer resident rows would close it."),
    Goal(key="z2_multipliers", label="[synth]", sense="<=", limit=0, exact=False, what="multipliers in pynq_z2"),
    Goal(key="sim_tokens_per_s", label="[sim]", sense=">=", limit=100, unit="tokens/s", exact=False,
         what="text of stories-260k from RTL on two cores",
         short="The simulator is the limit: cycles per token over cycles per second of a core."),
    Goal(key="sim_cycles_per_cpu_s", label="[sim]", sense=">=", limit=200_000, unit="cycles/s", exact=False,
         what="simulated cycles per second of one core, preset sim",
         short="Every unit is simulated in every cycle, 440 KB of code, and this computer has three quarters of the speed of the one that "
               "met the goal with 211,681. A build with -O2 -march=native was 9% faster, one guided by a profile 30%, for four "
               "minutes of building in place of 40 s."),
    Goal(key="cpu_baseline", label="[model]", unit="tokens/s", exact=False,
         what="stories-260k as a plain C loop with row skip on one Cortex-A9 core: measured on x86, scaled by published figures"),
)}
