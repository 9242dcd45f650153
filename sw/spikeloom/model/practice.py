"""Samples practice text from a public float model in the llama2.c legacy format.

The stories at hand are few (about 0.8 million tokens), so a small public model of the same kind of text writes more
of it. Only its *text* is used: the student has its own vocabulary. A model card must name the teacher.
"""

import argparse
import gzip
import json
import struct
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .corpus import encode_practice
from .tokenizer import Tokenizer
from .workers import pick_device


def scored_pieces(raw: bytes, vocabulary: int) -> list[tuple[bytes, float]]:
    """(piece, score) of each token of a llama2.c `tok*.bin`."""
    pieces, at = [], 4
    for _ in range(vocabulary):
        score, length = struct.unpack_from("fi", raw, at)
        pieces.append((raw[at + 8 : at + 8 + length], score))
        at += 8 + length
    return pieces


class Teacher:
    """A llama in float32 with a key-value cache, evaluated one position at a time for a batch of stories."""

    BEGIN, END = 1, 2

    def __init__(self, model_path: Path, tokenizer_path: Path):
        raw = Path(model_path).read_bytes()
        d, hidden, layers, heads, kv_heads, vocabulary, context = struct.unpack("7i", raw[:28])
        values = torch.from_numpy(np.frombuffer(raw, np.float32, offset=28).copy())
        self.heads, self.kv_heads, self.context, self.layers = heads, kv_heads, context, layers
        self.head_width = d // heads
        kv_width = kv_heads * self.head_width
        at = 0

        def take(*shape):
            nonlocal at
            size = int(np.prod(shape))
            at += size
            return values[at - size : at].view(*shape)

        self.embed = take(abs(vocabulary), d)
        self.norm_attention = take(layers, d)
        self.wq, self.wk = take(layers, d, d), take(layers, kv_width, d)
        self.wv, self.wo = take(layers, kv_width, d), take(layers, d, d)
        self.norm_ffn = take(layers, d)
        self.w1, self.w2, self.w3 = take(layers, hidden, d), take(layers, d, hidden), take(layers, hidden, d)
        self.norm_final = take(d)
        self.cos, self.sin = take(context, self.head_width // 2), take(context, self.head_width // 2)
        self.head = self.embed if vocabulary > 0 else take(-vocabulary, d)
        self.pieces = self._read_pieces(Path(tokenizer_path).read_bytes(), abs(vocabulary))

    @staticmethod
    def _read_pieces(raw: bytes, vocabulary: int) -> list[bytes]:
        pieces = [piece for piece, _ in scored_pieces(raw, vocabulary)]
        return [bytes([int(piece[3:5], 16)]) if len(piece) == 6 and piece.startswith(b"<0x") else piece for piece in pieces]

    def to(self, device: torch.device) -> "Teacher":
        """Move its weights."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.to(device))
        return self

    def _rotate(self, x: torch.Tensor, position) -> torch.Tensor:  # [..., heads, head_width]; an index of the tables
        even, odd = x[..., 0::2], x[..., 1::2]
        cos, sin = self.cos[position], self.sin[position]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)

    @staticmethod
    def _norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight

    def step(self, tokens: torch.Tensor, position: int, cache_k, cache_v) -> torch.Tensor:
        batch = len(tokens)
        x = self.embed[tokens]  # [B, d]
        group = self.heads // self.kv_heads
        for layer in range(self.layers):
            h = self._norm(x, self.norm_attention[layer])
            q = self._rotate((h @ self.wq[layer].T).view(batch, self.heads, -1), position)
            k = self._rotate((h @ self.wk[layer].T).view(batch, self.kv_heads, -1), position)
            cache_k[layer][:, :, position] = k
            cache_v[layer][:, :, position] = (h @ self.wv[layer].T).view(batch, self.kv_heads, -1)
            keys = cache_k[layer][:, :, : position + 1]  # [B, kv, t, w]
            grouped = q.view(batch, self.kv_heads, group, -1)  # [B, kv, group, w]
            # Every position there is has been written, so the queries of a group need no mask.
            mixed = F.scaled_dot_product_attention(grouped, keys, cache_v[layer][:, :, : position + 1])
            x = x + mixed.reshape(batch, -1) @ self.wo[layer].T
            h = self._norm(x, self.norm_ffn[layer])
            x = x + (F.silu(h @ self.w1[layer].T) * (h @ self.w3[layer].T)) @ self.w2[layer].T
        return self._norm(x, self.norm_final) @ self.head.T  # [B, V]

    def decode(self, tokens: list[int]) -> str:
        text = b"".join(self.pieces[token] for token in tokens).decode("utf-8", "ignore")
        return text[1:] if text.startswith(" ") else text

    @torch.inference_mode()
    def sample(self, batch: int, generator: torch.Generator, temperature: float = 1.0) -> list[dict]:
        """Stories as {"text", "complete"}; complete is false where the context ended before the story did.

        The generator's device is the teacher's.
        """
        device = self.embed.device
        shape = (batch, self.kv_heads, self.context, self.head_width)
        cache_k = [torch.zeros(shape, device=device) for _ in range(self.layers)]
        cache_v = [torch.zeros(shape, device=device) for _ in range(self.layers)]
        alive, over = torch.arange(batch, device=device), torch.zeros(batch, dtype=torch.bool, device=device)
        written = torch.full((batch, self.context), self.END, device=device)
        tokens = torch.full((batch,), self.BEGIN, device=device)
        for position in range(self.context):
            logits = self.step(tokens, position, cache_k, cache_v) / temperature
            noise = torch.rand(logits.shape, generator=generator, device=device).clamp_(1e-9, 1 - 1e-7)
            tokens = (logits - torch.log(-torch.log(noise))).argmax(-1)
            over |= (tokens == self.BEGIN) | (tokens == self.END)
            written[alive, position] = torch.where(over, self.END, tokens)
            running = len(over) - int(over.sum())
            if not running:
                break
            # Compacting costs a copy of the cache, so finished stories ride along until a fair share is finished.
            if running < 0.85 * len(tokens):
                keep = (~over).nonzero()[:, 0]
                alive, tokens, over = alive[keep], tokens[keep], over[keep]
                cache_k, cache_v = [c[keep] for c in cache_k], [c[keep] for c in cache_v]
        return [self._story(ids) for ids in written.cpu().numpy()]

    def _story(self, ids: np.ndarray) -> dict:
        ends = np.flatnonzero(ids == self.END)
        return {"text": self.decode(ids[: ends[0]].tolist() if len(ends) else ids.tolist()).strip(), "complete": len(ends) > 0}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="stories260K.bin")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tok512.bin")
    parser.add_argument("--out", type=Path, required=True, help="folder for practice-NNN.json.gz")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--student", type=Path, action="append", default=[], metavar="TOKENIZER",
                        help="tokenizer.json of a model that will read this: its token ids are kept too (may be given again)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    device = pick_device(options.device)
    teacher, generator = Teacher(options.model, options.tokenizer).to(device), torch.Generator(device).manual_seed(options.seed)
    students = [Tokenizer.load(path) for path in options.student]
    start, index, size = time.time(), 0, 0
    while time.time() - start < 60 * options.minutes:
        stories = teacher.sample(options.batch, generator)
        path = options.out / f"practice-{options.seed:02d}-{index:03d}.json.gz"
        partial = path.with_suffix(".part")
        with gzip.open(partial, "wt", compresslevel=1, encoding="utf-8") as file:
            json.dump({"stories": stories}, file)
        partial.rename(path)
        for student in students:
            encode_practice(path, student)
        index += 1
        size += sum(len(story["text"]) for story in stories)
        print(f"{path.name} {size} characters {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
