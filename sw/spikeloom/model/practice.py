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
        pieces, at = [], 4
        for _ in range(vocabulary):
            length = struct.unpack_from("i", raw, at + 4)[0]
            piece = raw[at + 8 : at + 8 + length]
            if len(piece) == 6 and piece.startswith(b"<0x"):
                piece = bytes([int(piece[3:5], 16)])
            pieces.append(piece)
            at += 8 + length
        return pieces

    def _rotate(self, x: torch.Tensor, position: int) -> torch.Tensor:  # [B, heads, head_width]
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
            scores = (grouped @ keys.transpose(-1, -2)) * self.head_width**-0.5
            mixed = scores.softmax(-1) @ cache_v[layer][:, :, : position + 1]
            x = x + mixed.reshape(batch, -1) @ self.wo[layer].T
            h = self._norm(x, self.norm_ffn[layer])
            x = x + (F.silu(h @ self.w1[layer].T) * (h @ self.w3[layer].T)) @ self.w2[layer].T
        return self._norm(x, self.norm_final) @ self.head.T  # [B, V]

    def decode(self, tokens: list[int]) -> str:
        text = b"".join(self.pieces[token] for token in tokens).decode("utf-8", "ignore")
        return text[1:] if text.startswith(" ") else text

    @torch.inference_mode()
    def sample(self, batch: int, generator: torch.Generator, temperature: float = 1.0) -> list[dict]:
        """Stories as {"text", "complete"}; complete is false where the context ended before the story did."""
        shape = (batch, self.kv_heads, self.context, self.head_width)
        cache_k = [torch.zeros(shape) for _ in range(self.layers)]
        cache_v = [torch.zeros(shape) for _ in range(self.layers)]
        alive = torch.arange(batch)
        written: list[list[int]] = [[] for _ in range(batch)]
        complete = [False] * batch
        tokens = torch.full((batch,), self.BEGIN)
        for position in range(self.context):
            logits = self.step(tokens, position, cache_k, cache_v) / temperature
            noise = torch.rand(logits.shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
            tokens = (logits - torch.log(-torch.log(noise))).argmax(-1)
            running = []
            for row, token in enumerate(tokens.tolist()):
                story = int(alive[row])
                if complete[story]:
                    continue
                if token in (self.BEGIN, self.END):
                    complete[story] = True
                else:
                    written[story].append(token)
                    running.append(row)
            if not running:
                break
            # Compacting costs a copy of the cache, so finished stories ride along until a fair share is finished.
            if len(running) < 0.85 * len(tokens):
                keep = torch.tensor(running)
                alive, tokens = alive[keep], tokens[keep]
                cache_k, cache_v = [c[keep] for c in cache_k], [c[keep] for c in cache_v]
        return [{"text": self.decode(ids).strip(), "complete": done} for ids, done in zip(written, complete)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="stories260K.bin")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tok512.bin")
    parser.add_argument("--out", type=Path, required=True, help="folder for practice-NNN.json.gz")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(options.model, options.tokenizer)
    generator = torch.Generator().manual_seed(options.seed)
    start, index, size = time.time(), 0, 0
    while time.time() - start < 60 * options.minutes:
        stories = teacher.sample(options.batch, generator)
        path = options.out / f"practice-{options.seed:02d}-{index:03d}.json.gz"
        partial = path.with_suffix(".part")
        with gzip.open(partial, "wt", encoding="utf-8") as file:
            json.dump({"stories": stories}, file)
        partial.rename(path)
        index += 1
        size += sum(len(story["text"]) for story in stories)
        print(f"{path.name} {size} characters {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
