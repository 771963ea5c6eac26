"""The tokenizer of the text tower, and what the text teacher says of sentences."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from mmsearch.training.export import text_graph
from mmsearch.training.towers import TextTower

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")  # the row of each is its id: padding is 0
Floats = npt.NDArray[np.float32]


def whole_words(tokenizer: Tokenizer) -> list[str]:
    """The teacher's tokens that are whole words of three letters or more, frequent ones first."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    return [word for word, _ in vocabulary if word.isascii() and word.isalpha() and len(word) >= 3]


def small_tokenizer(
    teacher: Tokenizer,
    texts: list[str],
    size: int,
    max_tokens: int,
    more: Sequence[str] = (),
) -> tuple[Tokenizer, list[int]]:
    """A WordPiece tokenizer with the most useful ``size`` tokens of the teacher's.

    Every single character stays, so that any word can be spelt; then the tokens that the texts use,
    by how often; then whole words in the teacher's order, which is by frequency in its own large
    corpus; last the characters ``more``, which the teacher may not know.

    Returns the tokenizer and the teacher's id of each token; of an unknown one, that of [UNK].
    """
    ids: dict[str, int] = teacher.get_vocab()
    names = {i: token for token, i in ids.items()}
    counts = Counter(
        token
        for encoding in teacher.encode_batch(texts, add_special_tokens=False)
        for token in encoding.ids
    )
    characters = [
        t
        for t in sorted(ids, key=lambda t: ids[t])
        if t.isascii() and len(t.removeprefix("##")) == 1
    ]
    used = [names[token] for token, count in counts.most_common() if count >= 2]
    useful = dict.fromkeys([*SPECIAL, *characters, *used, *whole_words(teacher)])
    chosen = [*[token for token in useful if token not in more][: size - len(more)], *more]
    tokenizer = Tokenizer(
        models.WordPiece(
            {t: i for i, t in enumerate(chosen)}, unk_token="[UNK]", max_input_chars_per_word=64
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", chosen.index("[CLS]")), ("[SEP]", chosen.index("[SEP]"))],
    )
    tokenizer.enable_truncation(max_tokens)
    return tokenizer, [ids.get(token, ids["[UNK]"]) for token in chosen]


def tokens_of(tokenizer: Tokenizer, texts: list[str]) -> list[npt.NDArray[np.int32]]:
    """The ids of each text, of many lengths."""
    return [np.array(encoding.ids, np.int32) for encoding in tokenizer.encode_batch(texts)]


def padded(rows: list[npt.NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
    """Ids and mask of one batch, both (n, longest) int64, padded with 0."""
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.from_numpy(row)
        mask[i, : len(row)] = 1
    return ids, mask


def embed_texts(
    tower: TextTower, tokenizer: Tokenizer, texts: list[str], *, sentence: bool, batch: int = 128
) -> Floats:
    """Unit rows of texts: (n, width) before the head where ``sentence``, else (n, 256).

    By ONNX Runtime, much quicker than torch on a CPU; its int8 products turn a vector by a cosine
    of 0.999.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        text_graph(tower, sentence=sentence).SerializeToString(), options
    )
    tokens = tokens_of(tokenizer, texts)
    out = np.zeros(
        (len(texts), tower.tokens.embedding_dim if sentence else tower.head.linear.out_features),
        np.float32,
    )
    order = np.argsort([len(row) for row in tokens], kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        ids, mask = padded([tokens[i] for i in rows])
        out[rows] = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})[0]
    return out


def teach(
    tower: TextTower, tokenizer: Tokenizer, texts: list[str], work: Path, shard: int = 8192
) -> npt.NDArray[np.float16]:
    """The teacher's vectors of all texts, (n, 384) float16; shards already on disk are kept."""
    folder = work / "teacher_texts"
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for start in range(0, len(texts), shard):
        part = texts[start : start + shard]
        path = folder / f"{hashlib.sha256(chr(10).join(part).encode()).hexdigest()[:16]}.npy"
        if not path.exists():
            began = time.time()
            rows = embed_texts(tower, tokenizer, part, sentence=True).astype(np.float16)
            np.save(path.with_suffix(".part.npy"), rows)
            path.with_suffix(".part.npy").rename(path)
            rate = len(rows) / (time.time() - began)
            print(f"teacher texts {start + len(rows)}/{len(texts)}: {rate:.0f}/s", flush=True)
        shards.append(np.load(path))
    return np.concatenate(shards)
