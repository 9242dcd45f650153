"""Measures the public float model stories260K on the held-out stories, as `evaluate` measures ours.

    python -m spikeloom.model.public_model --model stories260K.bin --tokenizer tok512.bin --out results/public-stories260k.json

Protocol. That of `evaluate`: every story stands alone, all bytes of its text are scored, a story longer than the context is read in
windows that overlap by half. Tokens are the model's own (byte pairs by score, a blank before the text, bytes for characters that
have no token), each story begins with its begin token. The model may have seen these stories in training.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from spikeloom.arch.config import ModelConfig

from . import corpus
from .evaluate import figures_of, summed_nats
from .practice import Teacher, scored_pieces

#: Tokens that the model may look back on: as many as ours has, as the published comparison took, and all it was trained with.
CONTEXTS = (256, 400, 512)


def read_tokenizer(path: Path, vocabulary: int):
    """The byte-pair tokenizer of a llama2.c `tok*.bin`, as a `tokenizers.Tokenizer`.

    Pieces merge in the order of their scores; `<0xNN>` stand for bytes.
    """
    import tokenizers as hf

    pieces = [(piece.decode("utf-8"), score) for piece, score in scored_pieces(Path(path).read_bytes(), vocabulary)]
    ids: dict[str, int] = {}
    for number, (piece, _) in enumerate(pieces):
        ids.setdefault(piece, number)
    merges = []
    for piece, _ in sorted(pieces, key=lambda item: -item[1]):
        parts = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        merges += [pair for pair in parts if pair[0] in ids and pair[1] in ids and not piece.startswith(("<", "\n<"))]
    backend = hf.Tokenizer(hf.models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = hf.normalizers.Prepend(" ")
    return backend


@torch.inference_mode()
def log_softmax(teacher: Teacher, tokens: torch.Tensor) -> torch.Tensor:
    """int64 [B, T] -> float [B, T, V], all positions at once."""
    batch, length = tokens.shape
    group = teacher.heads // teacher.kv_heads
    positions = slice(length), None  # the same for all heads

    def split(x, heads):
        return x.view(batch, length, heads, -1)

    x = teacher.embed[tokens]
    for layer in range(teacher.layers):
        h = teacher._norm(x, teacher.norm_attention[layer])
        q = teacher._rotate(split(h @ teacher.wq[layer].T, teacher.heads), positions)
        k = teacher._rotate(split(h @ teacher.wk[layer].T, teacher.kv_heads), positions).repeat_interleave(group, 2)
        v = split(h @ teacher.wv[layer].T, teacher.kv_heads).repeat_interleave(group, 2)
        mixed = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)), is_causal=True)
        x = x + mixed.transpose(1, 2).reshape(batch, length, -1) @ teacher.wo[layer].T
        h = teacher._norm(x, teacher.norm_ffn[layer])
        x = x + (F.silu(h @ teacher.w1[layer].T) * (h @ teacher.w3[layer].T)) @ teacher.w2[layer].T
    return F.log_softmax(teacher._norm(x, teacher.norm_final) @ teacher.head.T, -1)


def measure(model: Path, tokenizer: Path, texts: list[str], contexts=CONTEXTS) -> dict:
    """Bits per byte of texts, for each number of tokens of context."""
    teacher = Teacher(model, tokenizer)
    backend = read_tokenizer(tokenizer, len(teacher.pieces))
    encoded = [item.ids for item in backend.encode_batch(texts, add_special_tokens=False)]
    for text, ids in zip(texts, encoded):
        if teacher.decode(ids) != text:
            raise ValueError(f"The tokens do not give the text back: {text[:40]!r}...")
    total_bytes, tokens = sum(len(text.encode()) for text in texts), sum(map(len, encoded))
    shape = ModelConfig(name="public", vocabulary=len(teacher.pieces), context=256, width=64, layers=1, heads=4, hidden=64,
                        end_token=Teacher.BEGIN)
    out = {}
    for context in contexts:
        nats = summed_nats(lambda ids: log_softmax(teacher, ids), encoded, replace(shape, context=context))
        out[str(context)] = figures_of(nats, tokens, total_bytes)
    return {"model": {"name": "stories260K", "sha256": hashlib.sha256(Path(model).read_bytes()).hexdigest(), "float": True,
                      "licence": "MIT", "source": "karpathy/tinyllamas"},
            "texts": len(texts), "bytes": total_bytes, "tokens": tokens,
            "sha256_of_texts_joined_by_nul": hashlib.sha256("\0".join(texts).encode()).hexdigest(), "by_context": out}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m spikeloom.model.public_model", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="stories260K.bin")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tok512.bin")
    parser.add_argument("--out", type=Path, default=Path("results/public-stories260k.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("Scoring the held-out stories with the public model.", file=sys.stderr, flush=True)
    result = measure(options.model, options.tokenizer, corpus.load_default().held_out)
    protocol = " ".join(__doc__.split("Protocol. ")[1].split())
    command = f"python -m spikeloom.model.public_model --model {options.model.name} --tokenizer {options.tokenizer.name}"
    options.out.write_text(json.dumps({"command": command, "protocol": protocol, "evidence": "[model]"} | result, indent=2) + "\n",
                           encoding="utf-8")
    for context, figures in result["by_context"].items():
        print(f"context {context}: {figures['bits_per_byte']:.4f} bits/byte")


if __name__ == "__main__":
    main()
