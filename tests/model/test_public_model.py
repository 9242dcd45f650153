"""The public model measured as ours: its tokens give the text back, and all positions at once are those one by one."""

import math
import struct

import numpy as np
import pytest
import torch

from spikeloom.model.practice import Teacher
from spikeloom.model.public_model import log_softmax, measure, read_tokenizer

WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, CONTEXT = 16, 24, 2, 4, 2, 20
#: Piece and score: the higher merges first.
MERGES = [("ab", -1.0), ("bc", -2.0), ("abc", -3.0), (" a", -0.5), (" abc", -4.0)]
PIECES = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((f"<0x{byte:02X}>", 0.0) for byte in range(256)), *MERGES,
          *((letter, -1e3) for letter in " abc.")]


@pytest.fixture
def files(tmp_path, seed):
    """A llama of random weights and its tokenizer, in llama2.c's formats."""
    head, random = WIDTH // HEADS, np.random.default_rng(seed)
    kv = KV_HEADS * head
    sizes = [len(PIECES) * WIDTH, LAYERS * WIDTH, LAYERS * WIDTH * (2 * WIDTH + 2 * kv), LAYERS * WIDTH, 3 * LAYERS * WIDTH * HIDDEN, WIDTH]
    angles = np.outer(np.arange(CONTEXT), 0.3 ** np.arange(head // 2))
    values = np.concatenate([random.normal(0, 0.5, sum(sizes)), np.cos(angles).ravel(), np.sin(angles).ravel()]).astype(np.float32)
    shape = struct.pack("7i", WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, len(PIECES), CONTEXT)
    (tmp_path / "model.bin").write_bytes(shape + values.tobytes())
    pieces = b"".join(struct.pack("fi", score, len(piece.encode())) + piece.encode() for piece, score in PIECES)
    (tmp_path / "pieces.bin").write_bytes(struct.pack("i", 8) + pieces)
    return tmp_path / "model.bin", tmp_path / "pieces.bin"


@pytest.mark.parametrize("text, pieces", [
    ("ab", [" a", "b"]), ("abc", [" abc"]), ("cabc", [" ", "c", "abc"]), ("a.a", [" a", ".", "a"]),
    ("b\né", [" ", "b", "<0x0A>", "<0xC3>", "<0xA9>"]),
])
def test_pieces_merge_by_score(files, text, pieces):
    """As llama2.c does it: of all neighbours the pair whose piece has the highest score; a character without a piece is its bytes."""
    found = read_tokenizer(files[1], len(PIECES)).encode(text)
    assert found.tokens == pieces and Teacher(*files).decode(found.ids) == text


def test_all_positions_at_once_are_those_one_by_one(files, seed):
    teacher = Teacher(*files)
    tokens = torch.randint(3, len(PIECES), (2, 9), generator=torch.Generator().manual_seed(seed))
    shape = (2, KV_HEADS, CONTEXT, WIDTH // HEADS)
    cache = [[torch.zeros(shape) for _ in range(LAYERS)] for _ in "kv"]
    one_by_one = torch.stack([teacher.step(tokens[:, place], place, *cache) for place in range(9)], 1).log_softmax(-1)
    assert torch.allclose(log_softmax(teacher, tokens), one_by_one, atol=1e-5)


def test_bits_per_byte_are_those_of_the_text(files):
    """Summed by hand where a text fits the context; a shorter context sees less of a longer one."""
    teacher, texts = Teacher(*files), ["abc.a", "a" * 15]
    result = measure(*files, texts, contexts=(8, CONTEXT))
    backend, nats = read_tokenizer(files[1], len(PIECES)), 0.0
    for text in texts:
        ids = [Teacher.BEGIN, *backend.encode(text).ids]
        said = log_softmax(teacher, torch.tensor([ids[:-1]]))[0]
        nats -= sum(said[place, token].item() for place, token in enumerate(ids[1:]))
    assert result["bytes"] == 20 and result["by_context"][str(CONTEXT)]["bits_per_byte"] == pytest.approx(nats / math.log(2) / 20, abs=1e-4)
    assert result["by_context"]["8"] != result["by_context"][str(CONTEXT)]
