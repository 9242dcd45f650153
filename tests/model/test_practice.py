"""Practice text: a small llama of random weights in the legacy format writes stories, the same ones from the same seed."""

import struct

import numpy as np
import pytest
import torch

from spikeloom.model.practice import Teacher

WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY, CONTEXT = 16, 24, 2, 4, 2, 12, 20


@pytest.fixture
def teacher(tmp_path, seed):
    """Every piece but the first three is a letter."""
    head, random = WIDTH // HEADS, np.random.default_rng(seed)
    kv = KV_HEADS * head
    sizes = [VOCABULARY * WIDTH, LAYERS * WIDTH, LAYERS * WIDTH * (2 * WIDTH + 2 * kv), LAYERS * WIDTH, 3 * LAYERS * WIDTH * HIDDEN, WIDTH]
    angles = np.outer(np.arange(CONTEXT), 0.3 ** np.arange(head // 2))
    values = np.concatenate([random.normal(0, 0.5, sum(sizes)), np.cos(angles).ravel(), np.sin(angles).ravel()]).astype(np.float32)
    (tmp_path / "model.bin").write_bytes(struct.pack("7i", WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY, CONTEXT) + values.tobytes())
    pieces = [b"<unk>", b"<s>", b"</s>"] + [bytes([97 + i]) for i in range(VOCABULARY - 3)]
    (tmp_path / "pieces.bin").write_bytes(struct.pack("i", 8) + b"".join(struct.pack("fi", 0.0, len(p)) + p for p in pieces))
    return Teacher(tmp_path / "model.bin", tmp_path / "pieces.bin").to(torch.device("cpu"))


def test_stories_end_where_the_teacher_ends_them(teacher, seed):
    """A story is complete where its end was drawn; only then it may be shorter than the context. The same seed, the same stories."""
    stories = teacher.sample(64, torch.Generator().manual_seed(seed))
    assert stories == teacher.sample(64, torch.Generator().manual_seed(seed))
    assert len(stories) == 64 and 0 < sum(story["complete"] for story in stories)
    for story in stories:
        assert story["complete"] or len(story["text"].replace("<unk>", "u")) == CONTEXT


def test_a_step_is_attention_over_all_positions_so_far(teacher):
    """Logits of a position depend on the tokens before it: those of a prefix are the same whatever follows, others are not."""
    def logits(tokens):
        shape = (1, KV_HEADS, CONTEXT, WIDTH // HEADS)
        cache = [[torch.zeros(shape) for _ in range(LAYERS)] for _ in "kv"]
        return [teacher.step(torch.tensor([token]), position, *cache) for position, token in enumerate(tokens)]

    one, other = logits([1, 4, 5, 6]), logits([1, 4, 7, 6])
    assert torch.equal(one[1], other[1]) and not torch.allclose(one[3], other[3])
