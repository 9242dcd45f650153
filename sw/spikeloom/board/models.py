"""The models of the package, as images for a machine, with numpy alone."""

import json
import struct
from pathlib import Path

import numpy as np

from ..arch.config import AcceleratorConfig
from ..arch.layout import Image
from ..compiler import compile_model
from ..driver.images import open_image
from ..model import store
from ..model.store import StoredModel

_DTYPES = {"I8": "<i1", "U8": "<u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "F32": "<f4"}
_LARGEST_HEADER = 100_000_000


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a file in the safetensors format, which the package `safetensors` need not be installed for.

    Raises
    ------
    ValueError
        When the file is damaged, or holds a type that models here do not use.
    """
    data = path.read_bytes()
    try:
        size, = struct.unpack_from("<Q", data)
        if size > min(len(data) - 8, _LARGEST_HEADER):
            raise ValueError("its header is cut short")
        header = json.loads(data[8:8 + size])
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            raw = data[8 + size + start:8 + size + end]
            tensors[name] = np.frombuffer(raw, _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    return tensors


def load(name: str) -> StoredModel:
    """A model of the package by name, or of a folder. Raises ValueError."""
    return store.load(store.find(name), read_safetensors)


def image_of(name: str | Path, cfg: AcceleratorConfig, *folders: Path, trace_dumps: bool = False) -> Image:
    """The image of a model: a `.loom` file given, one of that name in the folders, or compiled now.

    With `trace_dumps` the image also dumps every intermediate.

    Raises
    ------
    BadImage
        When a file is damaged.
    FitError, ValueError
        When the model does not fit the machine, or does not exist.
    """
    if str(name).endswith(".loom"):
        return open_image(Path(name))[1]
    for folder in () if trace_dumps else folders:
        if (path := folder / f"{name}.loom").is_file():
            image = open_image(path)[1]
            if image.fingerprint == cfg.fingerprint:
                return image
    model = load(str(name))
    return compile_model(model.config, model.tensors, cfg, logit_scale=model.logit_scale, tokenizer_json=model.tokenizer_json,
                         mask_token=model.mask_token, class_names=model.class_names, trace_dumps=trace_dumps)
