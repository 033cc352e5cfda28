"""The examples: what they compute, without starting workers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from speedy_utils._instrument.tqdm.capture import capturing_tqdm
from speedy_utils.testing import RecordingSink

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    """An example as a module. It is in no package, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pack_sft = load("pack_sft")
dataset = load("dataset")


class LetterTokenizer:
    """Makes a token of each character, and has one special token, of the model with this start."""

    def __init__(self, special: str = "<|im_start|>") -> None:
        self.special = special

    def token_to_id(self, token: str) -> int | None:
        """The special token has number 0."""
        return 0 if token == self.special else None

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        """The special token."""
        return {0: SimpleNamespace(content=self.special, special=True)}

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> list[Any]:
        """Code points."""
        return [SimpleNamespace(ids=[ord(letter) for letter in text]) for text in texts]


def chat(*turns: tuple[str, str | None]) -> dict[str, list[dict[str, str | None]]]:
    """A row with a chat."""
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def naive_best_fit(lengths: list[int], capacity: int) -> list[int]:
    """The free space in each bin after best fit decreasing, by looking at each bin for each item."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in spaces if space >= length]
        if fitting:
            spaces.remove(min(fitting))
        spaces.append((min(fitting) if fitting else capacity) - length)
    return sorted(spaces)


@given(st.lists(st.integers(1, 20)))
def test_each_item_goes_where_it_leaves_the_least_space(lengths: list[int]) -> None:
    """Each item is in one bin, no bin overflows, and the bins are those that plain best fit makes."""
    bins = pack_sft.best_fit(lengths, 20)
    assert sorted(item for bin_ in bins for item in bin_) == list(range(len(lengths)))
    spaces = sorted(20 - sum(lengths[item] for item in bin_) for bin_ in bins)
    assert spaces == naive_best_fit(lengths, 20)


def test_sequences_keep_the_tokens_and_labels_of_each_example_together() -> None:
    """Examples lie end to end, with their lengths beside them."""
    long, short = (
        pack_sft.Example(np.array(ids, np.int32), np.array(labels, np.int32))
        for ids, labels in [([1, 2, 3], [-100, 2, 3]), ([4, 5], [-100, 5])]
    )
    assert pack_sft.pack([short, long, short], 5).to_list() == [
        {"input_ids": [1, 2, 3, 4, 5], "labels": [-100, 2, 3, -100, 5], "seq_lengths": [3, 2]},
        {"input_ids": [4, 5], "labels": [-100, 5], "seq_lengths": [2]},
    ]


def test_packing_nothing_makes_a_dataset_with_the_same_columns() -> None:
    """A shard of which nothing was left fits the others."""
    one = pack_sft.Example(np.ones(1, np.int32), np.ones(1, np.int32))
    assert pack_sft.pack([], 5).features == pack_sft.pack([one], 5).features
    assert len(pack_sft.pack([], 5)) == 0


def test_a_chat_is_rendered_up_to_its_last_answer() -> None:
    """What is given and what is learned take turns, and the end of an answer is learned."""
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")]
    assert pack_sft.render(turns, pack_sft.DEEPSEEK) == [
        "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜>",
        "b<｜end▁of▁sentence｜>",
        "<｜User｜>c<｜Assistant｜>",
        "d<｜end▁of▁sentence｜>",
    ]
    assert pack_sft.render(turns[:2], pack_sft.CHATML) == [
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n",
        "b<|im_end|>\n",
    ]


@pytest.mark.parametrize("template", ["CHATML", "DEEPSEEK"])
def test_the_template_is_that_of_the_tokenizer(template: str) -> None:
    """DeepSeek's template serves its tokenizer, and ChatML all others."""
    expected = getattr(pack_sft, template)
    tokenizer = LetterTokenizer(expected.start or "<|im_start|>")
    row = chat(("user", "a"), ("assistant", "b"))
    rendered = pack_sft.render([("user", "a"), ("assistant", "b")], expected)
    assert pack_sft.format_and_filter([row], tokenizer) == [rendered]


@pytest.mark.parametrize(
    "row",
    [
        chat(("user", " \n"), ("assistant", "b")),
        chat(("user", "a"), ("assistant", None)),
        chat(("user", "a")),
        chat(("critic", "a"), ("assistant", "b")),
        chat(("user", "a<|im_start|>system"), ("assistant", "b")),
        chat(),
    ],
    ids=["empty", "null", "no answer", "unknown role", "special token", "no messages"],
)
def test_a_chat_that_is_unfit_is_dropped(row: dict[str, Any]) -> None:
    """Only chats with texts, an answer, known roles and no special tokens in the text are left."""
    assert pack_sft.format_and_filter([row], LetterTokenizer()) == []


def test_only_answers_are_learned_and_what_is_too_long_is_dropped() -> None:
    """Labels are the tokens of the answers and -100 elsewhere; a chat as long as a sequence is kept."""
    chats = [["a", "b", "c", "d"], ["abc", "de"], ["a", "bcd"]]
    examples = pack_sft.tokenize(chats, LetterTokenizer(), 4, size=2)
    ids = [[chr(token) for token in example.ids] for example in examples]
    assert ids == [["a", "b", "c", "d"], ["a", "b", "c", "d"]]
    assert examples[0].labels.tolist() == [-100, ord("b"), -100, ord("d")]
    assert examples[1].labels.tolist() == [-100, ord("b"), ord("c"), ord("d")]


def test_the_check_finds_each_token_and_any_change() -> None:
    """The sums of a packed shard are those of its chats, and differ when an example is lost or changed."""
    rows = [chat(("user", "a" * n), ("assistant", "b" * (9 - n))) for n in range(1, 9)]
    arguments = (Dataset.from_list(rows), LetterTokenizer(), 200)
    want = pack_sft.expected(*arguments)
    examples = list(pack_sft.packed_examples(pack_sft.pack_shard(arguments[0], "", *arguments[1:])))
    assert pack_sft.summary(examples) == want
    assert want["examples"] == len(rows)
    swapped = examples[0]._replace(labels=examples[1].labels)
    for wrong in (examples[1:], [*examples[1:], examples[1]], [swapped, *examples[1:]]):
        assert pack_sft.summary(wrong)["checksum"] != want["checksum"]


def test_plain_tqdm_has_the_same_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written with tqdm the three steps have the counts, totals and result that they have with track."""
    monkeypatch.setitem(sys.modules, "pack_sft", pack_sft)
    adopt_tqdm = load("adopt_tqdm")
    rows = [chat(("user", "a" * n), ("assistant", "b" * (9 - n))) for n in range(1, 9)]
    shard = Dataset.from_list([*rows, chat(("user", "unanswered"))])
    packed, stages, totals = [], [], []
    for module in (pack_sft, adopt_tqdm):
        with RecordingSink() as sink, capturing_tqdm():
            packed.append(module.pack_shard(shard, "", LetterTokenizer(), 200).to_list())
        stages.append(sink.stages)
        totals.append(sink.totals)
    assert stages == totals == [{"Format & filter": 9, "Tokenize": 8, "Pack": 8}] * 2
    assert packed[0] == packed[1]


SOURCE = '''
\x0c
class Adder:
    @staticmethod
    async def add(a: int, *, b=2) -> int:
        """Add.

        Twice.
        """
        def inner(): return b
        return a + inner()
'''


def test_a_function_becomes_a_chat() -> None:
    """The prompt has its module, signature and docstring; the answer is its source, decorators included."""
    added, inner = (row["messages"] for row in pack_sft.module_chats("math.adder", SOURCE))
    assert [message["role"] for message in added] == ["system", "user", "assistant"]
    system, user, answer = (message["content"] for message in added)
    assert system == "Write this function of the module math.adder:\nasync def add(a: int, *, b=2) -> int:"
    assert user == "Add.\n\nTwice."
    assert answer.startswith("@staticmethod\nasync def add(")
    assert answer.endswith("\n    return a + inner()")
    assert [message["content"] for message in inner[1:]] == ["", "def inner(): return b"]


def test_chats_of_a_folder_come_in_the_order_of_its_files(tmp_path: Path) -> None:
    """Modules are named by their path, and tests are left out."""
    for name in ("b.py", "a/c.py", "test/d.py", "a/tests/e.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("def f(): pass\n")
    firsts = [row["messages"][0]["content"].splitlines()[0] for row in pack_sft.python_chats(str(tmp_path))]
    assert firsts == [f"Write this function of the module {name}:" for name in ("a.c", "b")]


def test_a_row_is_uppercased_and_measured() -> None:
    """The length is that of the line, also where uppercase is longer."""
    assert dataset.measured({"text": "maß"}) == {"text": "MASS", "length": 3}


def test_a_file_that_is_no_python_has_no_lines(tmp_path: Path) -> None:
    """Unreadable sources are passed over; of others the lines come without their ends."""
    bad, good = tmp_path / "bad.py", tmp_path / "good.py"
    bad.write_bytes(b"# \xff\n")
    good.write_text("a\n\nb")
    assert dataset.read(bad) == []
    assert dataset.read(good) == ["a", "", "b"]
