"""Puts lowered rows, parameters and program together into a `.loom` image."""

import json
from collections.abc import Sequence

import numpy as np

from ..arch.config import AcceleratorConfig, ModelConfig, check_fit, require
from ..arch.layout import Image, pack_program, section_offsets
from ..model.tensors import check_tensors
from .lower import Lowered, lower
from .placement import place
from .schedule import Schedule

#: Most prompt tokens that share the rows of a sweep, unless told.
PREFILL_BLOCK = 16


def compile_model(config: ModelConfig, tensors: dict[str, np.ndarray], cfg: AcceleratorConfig, *, logit_scale: float,
                  tokenizer_json: str | None = None, mask_token: int | None = None, class_names: Sequence[str] = (), streamed="auto",
                  trace_dumps: bool = False, prefill_block: int = PREFILL_BLOCK, prefill_ahead: bool = True) -> Image:
    """The image of a model for a machine.

    Parameters
    ----------
    config, tensors
        Model, as `model.tensors.tensor_shapes` lists it.
    cfg : AcceleratorConfig
    logit_scale : float
        Units of a logit per nat: temperatures and perplexities need it.
    tokenizer_json : str, optional
        Travels with the image; so do
    mask_token : int, optional
        the token that stands for a word to be filled in, and
    class_names : sequence of str
        the names of a classifier's classes.
    streamed : "auto", "none", "all", or a set of matrix names
        What is read from memory for each token instead of kept on chip.
    trace_dumps : bool
        Dump every intermediate (slow; for comparisons).
    prefill_block : int
        Most tokens of a prompt that are read together where layers are streamed; 0: one by one. The card's `prefill` says how
        many they are, or why there is none of it.
    prefill_ahead : bool
        Load the rows of the next sweep while one runs, where there are words for both.

    Raises
    ------
    FitError
        When the model does not fit the machine; the message names the limit.
    ValueError
        When a tensor is missing or of a wrong shape.
    """
    require(logit_scale > 0, f"The logit scale must be positive, it is {logit_scale}.", ValueError)
    check_tensors(config, tensors)
    check_fit(config, cfg)
    lowered = lower(config, tensors, cfg)
    placement = place(config, lowered, cfg, streamed)
    addresses, params = _parameters(config, lowered, cfg)

    def schedule(offsets):
        return Schedule(config, cfg, lowered, placement, addresses, offsets, trace_dumps=trace_dumps,
                        prefill_block=prefill_block, prefill_ahead=prefill_ahead)

    # The number of commands does not depend on where sections lie, so a first pass tells the size of the program.
    sections = {"program": pack_program(schedule({"params": 0, "resident": 0}).commands), "params": params}
    for name, data in (("resident", placement.resident), ("streamed", placement.streamed)):
        if data:
            sections[name] = bytes(data)
    plan = schedule(section_offsets({name: len(data) for name, data in sections.items()}))
    sections["program"] = pack_program(plan.commands)
    if tokenizer_json is not None:
        sections["tokenizer"] = tokenizer_json.encode()
    card = {"kind": kind(config), "model": config.to_dict(), "machine": cfg.name, "logit_scale": logit_scale, "entries": plan.entries,
            "labels": plan.labels, "prefill": {"without": plan.no_prefill} if plan.no_prefill else {"block": plan.prefill_block},
            "streamed": sorted(placement.names), "trace_dumps": trace_dumps,
            "bytes": {name: len(data) for name, data in sections.items()},
            "mask_token": mask_token, "class_names": list(class_names),
            "vocabulary": {"size": config.vocabulary, "end_token": config.end_token, "text": tokenizer_json is not None}}
    sections["card"] = json.dumps(card).encode()
    return Image(cfg.fingerprint, sections)


def kind(config: ModelConfig) -> str:
    """What a model is for: `decoder` (generate), `encoder` (fill) or `classifier`."""
    return "classifier" if config.classes else "encoder" if config.bidirectional else "decoder"


def _parameters(config: ModelConfig, lowered: Lowered, cfg: AcceleratorConfig) -> tuple[dict[str, int], bytes]:
    """First group of each operator, and all groups one after another."""
    addresses, data = {}, b""
    for name, groups in lowered.parameters.items():
        addresses[name] = len(data) // (cfg.lanes * 8)
        data += groups
    words = len(data) // (cfg.lanes * 8)
    require(words <= cfg.parameter_words, f"{config.name}: thresholds and biases take {words} parameter groups, "
                                          f"machine {cfg.name!r} has {cfg.parameter_words}.")
    return addresses, data
