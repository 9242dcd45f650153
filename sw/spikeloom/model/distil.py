"""Distillation from a finished run with the same tokenizer: soft targets beside the hard ones.

The softmax twin is the natural teacher: it shares corpus, vocabulary and context, and its predictions carry less noise
than one sampled token. Soft targets are SpAD's STA, hard targets its HTA (arXiv 2605.13859; papers: tau = 2).
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from .tokenizer import Tokenizer


class Teacher:
    """Frozen model of a run folder: tokens int64 [B, T] -> logits float [B, T, V].

    Parameters
    ----------
    folder : Path
        Holds `checkpoint.pt` and `tokenizer.json`.
    tokenizer : Tokenizer
        The student's.

    Raises
    ------
    ValueError
        When the teacher is not finished, or reads other tokens.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer):
        from .train import build_model

        folder = Path(folder)
        if not (folder / "checkpoint.pt").is_file():
            raise ValueError(f"{folder} holds no checkpoint.pt; train the teacher first.")
        if Tokenizer.load(folder / "tokenizer.json").backend.to_str() != tokenizer.backend.to_str():
            raise ValueError(f"The teacher in {folder} has another tokenizer; copy its tokenizer.json into the new run first.")
        state = torch.load(folder / "checkpoint.pt", weights_only=False, map_location="cpu")
        self.model = build_model(state["config"], state["kind"]).eval().requires_grad_(False)
        self.model.load_state_dict(state["model"])

    def to(self, device: torch.device) -> "Teacher":
        """The same, on a device."""
        self.model = self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(tokens)


def distillation_loss(logits: torch.Tensor, targets: torch.Tensor, guide: torch.Tensor, *, weight: float = 0.5,
                      temperature: float = 1.0) -> torch.Tensor:
    """(1 - weight) cross-entropy + weight tau^2 KL(teacher || student at temperature tau), a scalar.

    Parameters
    ----------
    logits, guide : float [B, T, V]
        Of student and teacher.
    targets : int64 [B, T]
        -100 where there is none; the teacher speaks there too.
    """
    hard = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    soft = F.kl_div(F.log_softmax(logits / temperature, -1).flatten(0, 1), F.log_softmax(guide / temperature, -1).flatten(0, 1),
                    reduction="batchmean", log_target=True)
    return (1 - weight) * hard + weight * temperature**2 * soft
