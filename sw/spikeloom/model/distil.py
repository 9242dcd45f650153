"""Distillation from a softmax teacher with the same tokenizer, one command from nothing to a student.

    spikeloom distil --config shakespeare --run RUN --steps 3000         # trains the twin in RUN/teacher first, then the student
    spikeloom distil --config stories-260k --run RUN --teacher stories-260k --minutes 60     # the twin of a released model teaches
    spikeloom distil --config bispikclm --run RUN --steps 2000           # a golden config: SpAD, all five losses

Plain distillation: soft targets beside the hard ones. The softmax twin is the natural teacher: it shares corpus, vocabulary and
context, and its predictions carry less noise than one sampled token. Soft targets are SpAD's STA, hard targets its HTA (arXiv
2605.13859; papers: tau = 2). Weight and temperature are `distillation` in a config's `training`; SpAD's five weights are `spad` there.
Configs that hold `golden` take SpAD, for which the student keeps its inner tensors; the others take plain distillation.
"""

import argparse
import os
from pathlib import Path

import torch
import torch.nn.functional as F

from . import corpus, reference, store
from .tokenizer import Tokenizer


def files_of(teacher: Path | str) -> tuple[Path, Path]:
    """(what `reference.state_of` reads, tokenizer.json) of a finished run's folder, or of the twin beside a released model.

    Raises
    ------
    ValueError
        When there is neither.
    """
    folder = Path(teacher)
    if (folder / "checkpoint.pt").is_file():
        return folder, folder / "tokenizer.json"
    if folder.is_dir() and not (folder / "model.safetensors").is_file():
        raise ValueError(f"{folder} holds no checkpoint.pt; train the teacher first.")
    model = store.find(str(teacher))
    twin = model / "reference" / "twin.safetensors"
    if not twin.is_file():
        raise ValueError(f"The model {model} has no softmax twin beside it ({twin} is missing).")
    return twin, model / "tokenizer.json"


def teacher_model(teacher: Path | str) -> torch.nn.Module:
    """The teacher, frozen, in evaluation form; `teacher` as in `files_of`."""
    return reference.load(files_of(teacher)[0])[0].requires_grad_(False)


def share_tokenizer(teacher: Path | str, folder: Path) -> None:
    """Give a new run the tokenizer of its teacher."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tokenizer.json").exists():
        (folder / "tokenizer.json").write_bytes(files_of(teacher)[1].read_bytes())


def check_tokenizer(teacher: Path | str, tokenizer: Tokenizer) -> None:
    """Refuse a teacher that reads other tokens than the student, whose tokenizer is given. Raises ValueError."""
    if Tokenizer.load(files_of(teacher)[1]).backend.to_str() != tokenizer.backend.to_str():
        raise ValueError(f"The teacher {teacher} has another tokenizer; copy its tokenizer.json into the new run first.")


class Teacher:
    """Frozen teacher: tokens int64 [B, T] -> logits float [B, T, V].

    Parameters
    ----------
    source : Path or str
        Folder of a finished run, or a released model whose twin teaches.
    tokenizer : Tokenizer
        The student's.

    Raises
    ------
    ValueError
        When the teacher is not finished, or reads other tokens.
    """

    def __init__(self, source: Path | str, tokenizer: Tokenizer):
        check_tokenizer(source, tokenizer)
        self.model = teacher_model(source)

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


def student(config: dict, *, run: Path, teacher: Path | str | None = None, split: corpus.Split | None = None, compiled: bool = True,
            **budget):
    """Train the teacher where none is given (a softmax twin, in `run`/teacher), then the student; both resume. The student's model.

    `budget`: `minutes`, `steps`, `seed`, `quiet`, as in `train.train`; teacher and student get as much each.
    """
    run = Path(run)
    if "golden" in config:
        from .golden.train import train
    else:
        from .train import train as plain

        def train(*args, **options):
            return plain(*args, compiled=compiled, **options)

        split = split or corpus.corpus_of(config["model"]["name"])
    if teacher is None:
        teacher = run / "teacher"
        train(config, run=teacher, kind="softmax", split=split, **budget)
    share_tokenizer(teacher, run)
    return train(config, run=run, teacher=teacher, split=split, **budget)


def main(arguments: list[str] | None = None) -> None:
    from .golden.train import texts_of
    from .train import load_config

    parser = argparse.ArgumentParser(prog="spikeloom distil", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="name of a config, or a path; one that holds `golden` is taught by SpAD")
    parser.add_argument("--run", type=Path, required=True, help="folder of the student; its teacher is trained in RUN/teacher")
    parser.add_argument("--teacher", help="finished run of a softmax twin, or a released model whose twin teaches; default: train one")
    parser.add_argument("--minutes", type=float, help="of teacher and student each")
    parser.add_argument("--steps", type=int, help="of teacher and student each")
    parser.add_argument("--data", metavar="SOURCE", help="texts, as of `spikeloom train`; default: the config's own corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compile", action="store_true", help="plain distillation: begin at once; slower from some minutes on")
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    config = load_config(options.config)
    split = texts_of(options.data, config) if options.data else None
    student(config, run=options.run, teacher=options.teacher, minutes=options.minutes, steps=options.steps, seed=options.seed,
            compiled=not options.no_compile, split=split)


if __name__ == "__main__":
    main()
