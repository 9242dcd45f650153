"""A released model: a folder with `model.safetensors`, `config.json`, `tokenizer.json` and a card."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..arch.config import ModelConfig, require
from .tensors import check_tensors, tensor_shapes

#: Models that come with the package.
MODELS = Path(__file__).resolve().parent.parent / "models"


@dataclass(frozen=True)
class StoredModel:
    """Integers of a trained model and what the host needs beside them."""

    config: ModelConfig
    tensors: dict[str, np.ndarray]
    #: Units of a logit per nat.
    logit_scale: float
    #: Text of `tokenizer.json`; None: the model has none.
    tokenizer_json: str | None = None
    #: Token that stands for a word to be filled in (encoders).
    mask_token: int | None = None
    #: Names of the classes (classifiers), in order.
    class_names: tuple[str, ...] = ()


def available(folder: Path = MODELS) -> list[str]:
    """Names of the models in a folder of models."""
    return sorted(path.parent.name for path in folder.glob("*/model.safetensors"))


def find(name: str) -> Path:
    """Folder of a model that comes with the package, or a folder given as it is.

    Raises
    ------
    ValueError
        Names the models that exist.
    """
    for folder in (MODELS / name, Path(name)):
        if (folder / "model.safetensors").is_file():
            return folder
    raise ValueError(f"There is no model {name!r}; there are: {', '.join(available()) or 'none'}.")


def digest(folder: Path) -> str:
    """SHA-256 of a model's integers, config and tokenizer, in results that were measured with them."""
    parts = (folder / name for name in ("model.safetensors", "config.json", "tokenizer.json"))
    return hashlib.sha256(b"".join(hashlib.sha256(part.read_bytes()).digest() for part in parts if part.is_file())).hexdigest()


def save(folder: Path, model: StoredModel) -> None:
    """Write a model folder; the card is left alone."""
    from safetensors.numpy import save_file

    check_tensors(model.config, model.tensors)
    folder.mkdir(parents=True, exist_ok=True)
    shapes = tensor_shapes(model.config)
    save_file({name: np.ascontiguousarray(model.tensors[name], dtype) for name, (_, dtype) in shapes.items()},
              folder / "model.safetensors")
    config = {"model": model.config.to_dict(), "logit_scale": model.logit_scale}
    config |= {name: value for name in ("mask_token", "class_names") if (value := getattr(model, name)) not in (None, ())}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if model.tokenizer_json is not None:
        (folder / "tokenizer.json").write_text(model.tokenizer_json, encoding="utf-8")


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a file. Raises ValueError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def _tokens_in(tokenizer_json: str) -> int:
    """Number of tokens of a `tokenizer.json`, the added ones among them. Raises ValueError."""
    try:
        fields = json.loads(tokenizer_json)
        vocabulary = fields["model"]["vocab"]
        pieces = vocabulary if isinstance(vocabulary, dict) else (piece for piece, _ in vocabulary)
        return len({*pieces, *(token["content"] for token in fields.get("added_tokens") or ())})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"tokenizer.json is no tokenizer ({type(error).__name__}: {error})") from error


def load(folder: Path, read: Callable[[Path], dict[str, np.ndarray]] = read_safetensors) -> StoredModel:
    """Read a model folder; `read` gives the tensors of a file in the safetensors format.

    Raises
    ------
    ValueError
        When a file is missing or damaged, or a tensor or the tokenizer does not fit the config.
    """
    try:
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config, logit_scale = ModelConfig.from_dict(fields["model"]), float(fields["logit_scale"])
        mask_token, class_names = fields.get("mask_token"), tuple(fields.get("class_names", ()))
        tensors = read(folder / "model.safetensors")
        require(math.isfinite(logit_scale) and logit_scale > 0, f"the logit scale must be positive, it is {logit_scale}", ValueError)
        require(mask_token is None or 0 <= mask_token < config.vocabulary, f"mask_token {mask_token} is no token", ValueError)
        check_tensors(config, tensors)
        tokenizer = folder / "tokenizer.json"
        text = tokenizer.read_text(encoding="utf-8") if tokenizer.is_file() else None
        if text is not None:
            count = _tokens_in(text)
            require(count == config.vocabulary, f"tokenizer.json has {count} tokens, the model {config.vocabulary}", ValueError)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        what = f"config.json lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise ValueError(f"The model folder {folder} cannot be read: {what}. Export the model again, or get the folder again from where "
                         "it came.") from error
    return StoredModel(config, tensors, logit_scale, text, mask_token, class_names)
