"""Zero-shot suites of the papers through `lm-eval`, from local files: ARC, HellaSwag, PIQA, WinoGrande, OpenBookQA, BoolQ, HEAD-QA.

    spikeloom eval --suite zero-shot --model stories-260k --limit 150

Nothing is downloaded. Every score stands beside chance (the mean of 1 / choices) and the softmax twin; a score within two standard
errors of chance says nothing about the model but that it is small.
"""

import gzip
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .corpus import data_folder
from .judges import Judge, judges


def _lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def _choices(name: str, ending: str = "") -> Callable[[Path], list[dict]]:
    def read(data: Path) -> list[dict]:
        return [{"query": row["query"].rstrip() + ending, "choices": row["choices"], "gold": row["gold"]}
                for row in _lines(data / "commonsense" / f"{name}.jsonl.gz")]
    return read


def _winogrande(data: Path) -> list[dict]:
    return [{"contexts": row["context_options"], "continuation": row["continuation"], "gold": row["gold"]}
            for row in _lines(data / "commonsense" / "winogrande.jsonl.gz")]


def _plain(text: str) -> str:
    """HellaSwag's WikiHow marks taken out, as lm-eval does."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _hellaswag(data: Path) -> list[dict]:
    return [{"query": _plain(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"),
             "choices": [_plain(ending) for ending in row["endings"]], "gold": int(row["label"])}
            for row in _lines(data / "hellaswag" / "hellaswag_val.jsonl.gz")]


def _headqa(data: Path) -> list[dict]:
    with gzip.open(data / "headqa" / "test_HEAD_EN.json.gz", "rt", encoding="utf-8") as file:
        exams = json.load(file)["exams"]
    rows = [row for exam in exams.values() for row in exam["data"] if not row["image"]]
    return [{"query": f"Question: {row['qtext']}\nAnswer:", "choices": [answer["atext"] for answer in row["answers"]],
             "gold": [str(answer["aid"]) for answer in row["answers"]].index(str(row["ra"]))} for row in rows]


#: Name of a task -> its rows from the data folder.
TASKS: dict[str, Callable[[Path], list[dict]]] = {
    "arc_easy": _choices("arc_easy", "\nAnswer:"), "arc_challenge": _choices("arc_challenge", "\nAnswer:"), "hellaswag": _hellaswag,
    "piqa": _choices("piqa", "\nAnswer:"), "winogrande": _winogrande, "openbookqa": _choices("openbook_qa"),
    "boolq": _choices("boolq", "\nAnswer:"), "headqa": _headqa,
}


def task_config(name: str, file: Path, contexts: bool) -> dict[str, Any]:
    """Configuration of an lm-eval task over a local file."""
    if contexts:  # the context differs, what follows is common
        texts = {"doc_to_text": lambda doc: doc["gold"], "doc_to_choice": lambda doc: doc["contexts"],
                 "doc_to_target": lambda doc: doc["continuation"]}
    else:
        texts = {"doc_to_text": lambda doc: doc["query"], "doc_to_choice": lambda doc: doc["choices"],
                 "doc_to_target": lambda doc: doc["gold"]}
    names = ("acc",) if contexts else ("acc", "acc_norm")
    metrics = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]
    return {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}}, "test_split": "test",
            "output_type": "multiple_choice", "metric_list": metrics, "metadata": {"version": 1.0}, **texts}


def adapter(judge: Judge, advance: Callable[[int], None] = lambda _: None):
    """A `lm_eval.api.model.LM` of a judge."""
    from lm_eval.api.model import LM

    class SpikeloomLM(LM):
        """Log-likelihoods by a Spikeloom model; it has no chat form, and text is generated on a device."""

        def loglikelihood(self, requests, disable_tqdm: bool = False):
            return judge.continuations([request.args for request in requests], advance=advance)

        def loglikelihood_rolling(self, requests, disable_tqdm: bool = False):
            return [-judge.nats([judge.encode(request.args[0])]) for request in requests]

        def generate_until(self, requests, disable_tqdm: bool = False):
            raise NotImplementedError("The adapter scores text; generate with: spikeloom generate")

    return SpikeloomLM()


def evaluate(judge: Judge, limit: int, names: list[str], data: Path, advance: Callable[[int], None] = lambda _: None) -> dict[str, dict]:
    """Accuracy, standard error and chance of each task.

    Raises
    ------
    ValueError
        When lm-eval is not installed.
    """
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    try:
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.evaluator import simple_evaluate
    except ImportError as error:
        raise ValueError('lm-eval is not installed; get it with: pip install "spikeloom[eval]"') from error
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("HF_DATASETS_CACHE", str(Path(folder) / "cache"))
        tasks, chance = [], {}
        for name in names:
            rows = TASKS[name](data)[:limit]
            file = Path(folder) / f"{name}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            chance[name] = sum(1 / len(row.get("choices", row.get("contexts"))) for row in rows) / len(rows), len(rows)
            tasks.append(ConfigurableTask(config=task_config(name, file, "contexts" in rows[0])))
        found = simple_evaluate(adapter(judge, advance), tasks=tasks, bootstrap_iters=0, log_samples=False, verbosity="ERROR")
    table = {}
    for name, held in found["results"].items():
        share, count = chance[name]
        accuracy = held["acc,none"]
        table[name] = {"accuracy": round(accuracy, 4), "chance": round(share, 4), "questions": count,
                       "standard_error": round((accuracy * (1 - accuracy) / count) ** 0.5, 4)}
        if "acc_norm,none" in held:
            table[name]["accuracy_by_length"] = round(held["acc_norm,none"], 4)
    return table


def measure(folder: Path, limit: int = 150, names: list[str] | None = None, progress=lambda what, total: lambda done: None) -> dict:
    """The suites for a model's integers and its twin.

    Raises
    ------
    ValueError
        When there is no data folder.
    """
    data = data_folder()
    if data is None:
        raise ValueError("The suites need a data folder: set SPIKELOOM_DATA to one that holds commonsense/, hellaswag/ and headqa/.")
    names = list(names or TASKS)
    result = {"evidence": "[model]", "shots": 0, "questions_per_task": limit, "models": {}}
    for judge in judges(folder, ("integer", "softmax twin")):
        advance = progress(f"zero-shot, {judge.name}", None)
        table = evaluate(judge, limit, names, data, advance)
        result["models"][judge.name] = {"tasks": table, "characters_respelled": round(judge.changed / max(1, judge.seen), 4)}
    return result
