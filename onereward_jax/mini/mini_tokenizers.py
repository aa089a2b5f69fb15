"""Small tokenizers for the mini models, learned from the mini world's own prompts and queries.

They are instances of the classes that FLUX.1-Fill-dev and Qwen2.5-VL use, so the same code loads
them. The same texts give the same files. Any text can be tokenised: the CLIP and Qwen tokenizers
fall back to bytes, the T5 tokenizer to printable ASCII characters. Words in capitals are words that
a prompt asks to draw. They are not in the learned vocabulary: T5 and Qwen spell them letter by
letter, so an unseen word consists of seen tokens.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, Qwen2Tokenizer, T5Tokenizer

QWEN_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
ANSWERS = ("Yes", "No")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message.role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Pair = tuple[str, str]


def clip_tokenizer(texts: Iterable[str], merges: int = 300, max_length: int = 77) -> CLIPTokenizer:
    """A lower-casing byte-level BPE with <|startoftext|> and <|endoftext|>, padded with the latter.

    Args:
      texts: texts to learn the vocabulary from.
      merges: largest number of merges; the vocabulary has 514 + merges tokens.
      max_length: length of a padded prompt in tokens.
    """
    alphabet = sorted(ByteLevel.alphabet())
    # An empty tokenizer, for its splitting into words.
    words = _words(texts, CLIPTokenizer(vocab={"<|endoftext|>": 0}).backend_tokenizer)
    ended = {(*word[:-1], word[-1] + "</w>"): count for word, count in words.items()}
    learned = learn_merges(ended, merges)
    ends = [letter + "</w>" for letter in alphabet]
    joined = ["".join(pair) for pair in learned]
    # Last, so that the end token has the highest id: CLIP's pooling takes the maximum.
    special = ["<|startoftext|>", "<|endoftext|>"]
    vocab = _number(alphabet + ends + joined + special)
    return CLIPTokenizer(vocab=vocab, merges=learned, model_max_length=max_length)


def t5_tokenizer(texts: Iterable[str], words: int = 600, max_length: int = 512) -> T5Tokenizer:
    """A Unigram model of frequent words and all printable ASCII characters, ending with </s>.

    Args:
      texts: texts to learn the vocabulary from.
      words: largest number of words that are single tokens.
      max_length: length of a padded prompt in tokens.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        spaced = "".join("▁" + word for word in _small(text).split())
        counts.update(re.findall(r"▁?[a-z]+", spaced))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:words]
    total = sum(counts.values()) + 1
    letters = string.digits + string.ascii_letters + string.punctuation
    # Every character costs more than any whole word.
    rare = -2.0 * math.log(total) - 2.0
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", rare)]
    pieces += [(letter, rare) for letter in letters]
    pieces += [(word, math.log(count / total)) for word, count in ranked if len(word) > 1]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=max_length)


def qwen_tokenizer(
    texts: Iterable[str], merges: int = 400, max_length: int = 4096
) -> Qwen2Tokenizer:
    """A byte-level BPE with Qwen2.5-VL's control tokens, and "Yes" and "No" as single tokens.

    Args:
      texts: texts to learn the vocabulary from.
      merges: largest number of merges; the vocabulary has about 264 + merges tokens.
      max_length: the files' `model_max_length`, in tokens.
    """
    alphabet = sorted(ByteLevel.alphabet())
    words = _words(texts, Qwen2Tokenizer().backend_tokenizer)
    learned = learn_merges({tuple(word): count for word, count in words.items()}, merges)
    for answer in ANSWERS:
        pieces = _apply(tuple(answer), learned)
        while len(pieces) > 1:
            learned.append(pieces[:2])
            pieces = (pieces[0] + pieces[1], *pieces[2:])
    joined = ["".join(pair) for pair in learned]
    return Qwen2Tokenizer(
        vocab=_number([*alphabet, *joined, *QWEN_SPECIAL_TOKENS]),
        merges=learned,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(QWEN_SPECIAL_TOKENS),
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
    )


def learn_merges(words: Mapping[tuple[str, ...], int], limit: int) -> list[Pair]:
    """Byte-pair encoding (Sennrich et al., 2016): the most frequent pairs, in order of merging.

    Args:
      words: word as a tuple of symbols -> count.
      limit: largest number of pairs; a pair that occurs once is not merged.
    """
    words = dict(words)
    learned: list[Pair] = []
    while len(learned) < limit:
        counts: Counter[Pair] = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                counts[pair] += count
        best = max(counts, key=lambda pair: (counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        learned.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for word, count in words.items():
            merged[_merge(word, best)] += count
        words = merged
    return learned


def _merge(word: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    """`word` with every occurrence of the pair merged, from the left."""
    result: list[str] = []
    for symbol in word:
        # A merged symbol is longer than the pair's first, unless the second is empty.
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return tuple(result)


def _apply(word: tuple[str, ...], merges: Iterable[Pair]) -> tuple[str, ...]:
    for pair in merges:
        word = _merge(word, pair)
    return word


def _small(text: str) -> str:
    """The text without its words in capitals."""
    return re.sub(r"\b[A-Z]{2,}\b", " ", text)


def _words(texts: Iterable[str], tokenizer: Tokenizer) -> Counter[str]:
    """Words as the tokenizer's own normaliser and splitter see them, with their counts."""

    def split() -> Iterator[str]:
        for text in texts:
            normal = tokenizer.normalizer.normalize_str(_small(text))
            yield from (word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))

    return Counter(split())


def _number(tokens: Iterable[str]) -> dict[str, int]:
    """Token -> id in order of first appearance (two merges may spell the same token)."""
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}
