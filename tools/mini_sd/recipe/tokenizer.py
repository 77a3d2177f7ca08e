"""Stage ``tokenizer``: byte-level BPE of CLIP's form for the world's words."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .common import Log
from .drawings import load_captions
from world.captions import NAME

START, END = '<|startoftext|>', '<|endoftext|>'
POSITIONS = 77
MERGES = 500  # more than the world's words need: each becomes one token


def train_tokenizer(work_dir: Path, log: Log) -> None:
    """Learn merges from the captions and save ``tokenizer/``.

    All 256 bytes are in the vocabulary, so any text can be written, if at
    length.
    """
    texts = [text for texts in load_captions(work_dir) for text in texts]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(end_of_word_suffix='</w>'))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=2 * len(alphabet) + MERGES,
            initial_alphabet=alphabet,
            end_of_word_suffix='</w>',
            show_progress=False,
        ),
    )
    merges = [
        tuple(pair) for pair in json.loads(bpe.to_str())['model']['merges']
    ]
    tokens = [*alphabet, *(letter + '</w>' for letter in alphabet)]
    tokens += [a + b for a, b in merges if a + b not in tokens]
    tokens += [START, END]
    folder = work_dir / 'tokenizer'
    folder.mkdir(exist_ok=True)
    (folder / 'vocab.json').write_text(
        json.dumps({token: i for i, token in enumerate(tokens)})
    )
    (folder / 'merges.txt').write_text(
        '#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in merges)
    )
    CLIPTokenizer(
        str(folder / 'vocab.json'),
        str(folder / 'merges.txt'),
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=POSITIONS,
    ).save_pretrained(folder)
    tokenizer = load_tokenizer(work_dir)
    words = sorted({word for text in texts for word in text.split()})
    split = [w for w in words if len(tokenizer.tokenize(w.strip(','))) > 1]
    longest = max(len(ids) for ids in tokenizer(texts[:8000])['input_ids'])
    log(
        f'tokenizer: {len(tokenizer)} tokens, {len(words)} words of which '
        f'{len(split)} are split, longest caption {longest} positions'
    )


def name_id(tokenizer: CLIPTokenizer) -> int:
    """Return the token that stands for a proper name in captions."""
    token: int = tokenizer.convert_tokens_to_ids(f'{NAME}</w>')
    return token


def load_tokenizer(work_dir: Path) -> CLIPTokenizer:
    """Return the trained tokenizer."""
    return CLIPTokenizer.from_pretrained(work_dir / 'tokenizer')
