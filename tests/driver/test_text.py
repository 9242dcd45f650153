"""Text in whole characters, and prompts that a vocabulary cannot say."""

import pytest

tokenizers = pytest.importorskip("tokenizers")

from spikeloom.driver.errors import BadImage, PromptError
from spikeloom.driver.text import Stream, Text

CHARACTERS = "abc é"


def byte_level() -> Text:
    """One token per byte: characters outside ASCII take several."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return Text(tokenizer.to_str())


def characters() -> Text:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(CHARACTERS)}, []))
    tokenizer.decoder = tokenizers.decoders.Fuse()
    return Text(tokenizer.to_str())


@pytest.mark.parametrize("text", ["plain", "déjà vu", "日本語 text", "🙂🙃", "a🙂b"])
def test_characters_come_whole(text):
    tool = byte_level()
    stream = Stream(tool)
    pieces = [stream.push(token) for token in tool.encode(text)]
    assert "".join(pieces) == text
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)
    assert stream.finish() == ""


def test_a_sequence_that_never_ends_is_replaced_at_the_end():
    tool = byte_level()
    ids = tool.encode("a🙂")[:-1]
    assert list(Stream(tool).over(ids)) == ["a", "\N{REPLACEMENT CHARACTER}"]


def test_text_that_cannot_be_said_is_named():
    tool = characters()
    assert tool.decode(tool.encode("abé c")) == "abé c"
    with pytest.raises(PromptError, match=r"'x' \(U\+0078\), '日' \(U\+65E5\)"):
        tool.encode("ax日x")
    with pytest.raises(PromptError, match="empty"):
        tool.encode("")
    with pytest.raises(PromptError, match="not valid UTF-8"):
        tool.encode(b"ab\xff".decode(errors="surrogateescape"))


def test_damaged_tokenizers_are_refused():
    with pytest.raises(BadImage, match="tokenizer"):
        Text("{}")
