"""The work of pack_sft.py, written with plain tqdm: what runs in the workers knows nothing of speedy_utils.

    python examples/adopt_tqdm.py [--workers 8] [--backend processes] [--seq_len 16368]

Each loop has a bar of its own, as in a script for one process. In the workers these bars draw nothing. What
they count appears in one line for each description, summed over all workers: `Format & filter`, `Tokenize`
and `Pack`. Each ends at exactly its total.
"""

from __future__ import annotations

import argparse
import sysconfig
import tempfile
from typing import TYPE_CHECKING

import pack_sft
from datasets import Dataset, load_from_disk
from tqdm import tqdm

from speedy_utils import multi_process_dataset

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def pack_shard(dataset: Dataset, _output_path: str, tokenizer: Tokenizer, seq_len: int) -> Dataset:
    """Chats in, sequences out."""
    formatted = pack_sft.formatter(tokenizer)
    chats = [chat for row in tqdm(dataset, desc="Format & filter") if (chat := formatted(row))]

    examples: list[pack_sft.Example] = []
    with tqdm(total=len(chats), desc="Tokenize") as bar:
        for start in range(0, len(chats), 200):
            batch = chats[start : start + 200]
            examples += pack_sft.tokenize_batch(batch, tokenizer, seq_len)
            bar.update(len(batch))

    bins = pack_sft.Bins(seq_len)
    lengths = [len(example.ids) for example in examples]
    for item in tqdm(pack_sft.longest_first(lengths), desc="Pack"):
        bins.add(item, lengths[item])
    return pack_sft.lay_out(examples, bins.filled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--backend", choices=["ray", "processes", "threads", "seq"])
    parser.add_argument("--seq_len", type=int, default=16_368)
    options = parser.parse_args()

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(pack_sft.default_tokenizer())
    with tempfile.TemporaryDirectory() as scratch:
        library = {"folder": sysconfig.get_path("stdlib")}
        chats = Dataset.from_generator(pack_sft.python_chats, gen_kwargs=library, cache_dir=scratch)
        packed = multi_process_dataset(
            chats,
            pack_shard,
            f"{scratch}/packed",
            process_func_kwargs={"tokenizer": tokenizer, "seq_len": options.seq_len},
            num_workers=options.workers,
            backend=options.backend,
        )
        print(f"{len(chats):,} chats, {len(load_from_disk(packed)):,} sequences")


if __name__ == "__main__":
    main()
