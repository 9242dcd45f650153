"""Float models kept beside a released one, so that anyone can measure them again: safetensors, no pickles.

    python -m spikeloom.model.reference --run RUN --out float.safetensors
"""

import argparse
import json
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


def state_of(source: Path) -> dict:
    """{"config", "model", "tokens", "kind"} of a training run's folder or of a file that `save` wrote.

    Raises
    ------
    FileNotFoundError
        When there is neither.
    ValueError
        When it is damaged, or something else.
    """
    source = Path(source)
    try:
        if source.is_dir():
            state = torch.load(source / "checkpoint.pt", weights_only=False, map_location="cpu")
            return {"config": state["config"], "model": state["model"], "tokens": state["tokens"],
                    "kind": "spiking" if "hardness" in state["model"] else "softmax"}
        with safe_open(source, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            about = json.loads(file.metadata()["spikeloom"])
        return about | {"model": tensors}
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{source} holds no float model: {error}. Give the folder of a training run, or a file that "
                         "`python -m spikeloom.model.reference` wrote.") from error


def save(run: Path, out: Path, *, half: bool = False) -> None:
    """Write the newest checkpoint of a run, without its optimisers; `half`: real numbers in 16 bits."""
    state = state_of(run)
    about = {name: state[name] for name in ("config", "tokens", "kind")}
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous().clone()
               for name, tensor in state["model"].items()}
    save_file(tensors, out, {"spikeloom": json.dumps(about)})
    Path(out).chmod(0o644)  # safetensors creates files that only their owner may read


def load(source: Path) -> tuple[torch.nn.Module, dict]:
    """The model in evaluation form, and its state's other entries."""
    from .train import build_model

    state = state_of(source)
    model = build_model(state["config"], state["kind"])
    model.load_state_dict(state["model"])
    if hasattr(model, "hardness"):
        model.hardness.fill_(1.0)
    return model.eval(), state


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a training run")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    save(options.run, options.out)


if __name__ == "__main__":
    main()
