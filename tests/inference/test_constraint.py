"""Constrained writing: no text breaks its constraint, and none that fulfils it is out of reach."""

import json
import random
import re
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats
from tests.writers import BEGIN, END, VOCABULARY, byte_fallback, byte_level, letters, untrained
from tokenizers import Tokenizer, decoders
from tokenizers import models as kinds
from transformers.generation import logits_process as theirs

from weft.errors import DataError, UsageError
from weft.features.tokenizer import character_tokenizer
from weft.inference import sampling as ours
from weft.inference.choices import score_choices
from weft.inference.constraint import Constraint, Grammar
from weft.inference.generate import Sampling, next_tokens, stream, write
from weft.inference.write_table import write_table

TOKENIZERS = {
    "byte-level": byte_level(begin=True),
    "byte-fallback": byte_fallback(),
    "own letters": character_tokenizer(["ab 花a天 中1"], least=1),
    "letters": letters('abcdefghm花中天 0123456789{}[]",:.-eE+truefalsn\\/xyzABC'),
}
WARM = Sampling(max_tokens=60, temperature=1.5)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}  # fmt: skip


@pytest.fixture(scope="module", params=list(TOKENIZERS))
def tokenizer(request):
    return TOKENIZERS[request.param]


@pytest.fixture(scope="module")
def model():
    return untrained("gru")


def ways(r: random.Random) -> Sampling:
    """Greedy, drawn, filtered, or with beams."""
    return r.choice(
        [
            Sampling(max_tokens=50),
            replace(WARM, seed=r.randrange(100)),
            replace(WARM, top_p=0.8, top_k=20, repetition_penalty=1.3),
            Sampling(max_tokens=50, beams=3),
        ]
    )


def expression(r: random.Random, depth: int = 0) -> str:
    kind = r.choice(["text", "set", "or", "and", "again"] if depth < 3 else ["text", "set"])
    if kind == "text":
        return "".join(r.choice("ab花c天d 1") for _ in range(r.randint(1, 3)))
    if kind == "set":
        return r.choice(["[a-c]", r"\d", "[^a-y]", ".", "[天花]", "[a-f0-9]", r"\.", r"[^\d]"])
    if kind == "or":
        return "(" + "|".join(expression(r, depth + 1) for _ in range(r.randint(2, 3))) + ")"
    if kind == "and":
        return "".join(expression(r, depth + 1) for _ in range(r.randint(2, 3)))
    return "(?:" + expression(r, depth + 1) + ")" + r.choice(["?", "*", "+", "{2}", "{1,3}", "{0,2}", "{2,}"])


def schema(r: random.Random, depth: int = 0) -> dict[str, Any]:
    plain = ["string", "pattern", "format", "integer", "number", "boolean", "null", "enum", "const"]
    kind = r.choice([*plain, "object", "object", "array", "anyOf"] if depth < 3 else plain)
    made: dict[str, Any] = {"type": kind}
    if kind == "string":
        made |= r.choice([{}, {"minLength": 2}, {"maxLength": 5}, {"minLength": 1, "maxLength": 4}])
    elif kind == "pattern":
        return {"type": "string", "pattern": r.choice(["^[a-c]{1,3}$", "^ab", "[0-9]{2}$", "a", "^(ab|花)+$"])}
    elif kind == "format":
        return {"type": "string", "format": r.choice(["date", "ipv4"])}
    elif kind in ("integer", "number"):
        made |= r.choice([{}, {"minimum": -20}, {"minimum": 3, "maximum": 120}, {"exclusiveMinimum": 7}])
        made |= {"multipleOf": 3} if kind == "integer" and r.random() < 0.2 else {}
    elif kind == "enum":
        return {"enum": r.sample(["a", "花", 1, 2.5, None, True, [1], {"a": "b"}, '中"\\'], r.randint(1, 4))}
    elif kind == "const":
        return {"const": r.choice(["a", 1, {"a": [1, "花"]}, None])}
    elif kind == "anyOf":
        return {"anyOf": [schema(r, depth + 1), schema(r, depth + 1)]}
    elif kind == "array":
        made |= {"items": schema(r, depth + 1)}
        made |= r.choice([{"maxItems": 3}, {"minItems": 1, "maxItems": 2}, {"minItems": 2}])
    elif kind == "object":
        names = r.sample(["a", "b", "花", "x y"], r.randint(0, 3))
        made |= {"properties": {n: schema(r, depth + 1) for n in names}}
        made |= {"required": r.sample(names, r.randint(0, len(names)))}
        made |= r.choice([{}, {"additionalProperties": False}, {"additionalProperties": {"type": "integer"}}])
    return made


class TestNeverBroken:
    @pytest.mark.parametrize("seeds", range(0, 240, 60))
    def test_regular_expressions(self, model, seeds):
        """Every text that ended is one that Python's ``re`` matches, of hundreds of expressions."""
        ended: Counter[str] = Counter()
        for seed in range(seeds, seeds + 60):
            r = random.Random(seed)
            pattern, name, way = expression(r), r.choice(list(TOKENIZERS)), ways(r)
            constraint = Constraint.matching(pattern)
            try:
                texts = write(model, TOKENIZERS[name], ["ab", "", "花"], replace(way, constraint=constraint))
            except UsageError as error:  # the letters have no '.' or '天' for every expression
                assert name == "letters" and "that this tokenizer can write" in str(error)
                continue
            for text in texts:
                ended[text.stopped] += 1
                assert text.stopped in ("end", "complete", "length") and (text.valid or text.stopped == "length")
                assert not text.valid or re.fullmatch(pattern, text.text), (seed, pattern, text)
        assert ended["complete"] > 20 and ended["end"] > 3 and ended["length"] > 3

    @pytest.mark.parametrize("seeds", range(0, 240, 60))
    def test_schemas(self, model, seeds):
        """Every text that ended is JSON that ``jsonschema`` accepts; one that was cut off is said to be broken."""
        ended: Counter[bool] = Counter()
        for seed in range(seeds, seeds + 60):
            r = random.Random(seed)
            wanted, name, way = schema(r), r.choice(list(TOKENIZERS)), ways(r)
            try:
                constraint = Constraint.json_schema(wanted)
            except UsageError as error:
                assert "nsatisfiable" in str(error)
                continue
            for text in write(model, TOKENIZERS[name], ["ab", "", "花"], replace(way, constraint=constraint)):
                ended[bool(text.valid)] += 1
                if text.valid:
                    jsonschema.Draft202012Validator(wanted).validate(json.loads(text.text))
                else:
                    assert text.stopped == "length", (seed, wanted, text)
        assert ended[True] > 60 and ended[False] > 3

    def test_every_budget_is_valid_or_said_not_to_be(self, model, tokenizer):
        constraint = Constraint.json_schema({"enum": ["花a", {"a": [1, 2]}]})
        for most in range(1, 16):
            for beams in (1, 3):
                done = write(model, tokenizer, ["a"], Sampling(max_tokens=most, beams=beams, constraint=constraint))[0]
                whole = done.text in ('"花a"', '{"a":[1,2]}') or done.text.replace(" ", "") == '{"a":[1,2]}'
                assert (done.valid, done.stopped) == ((True, "complete") if whole else (False, "length"))


class TestTokens:
    """The tokens that may come next, against the definition."""

    texts = ("ab", "abba", "b 花", "花花", " a", "天")

    def test_allowed_are_those_that_some_text_goes_on_with(self, tokenizer):
        grammar = Grammar(Constraint.one_of(self.texts), tokenizer, VOCABULARY, (END,))
        wanted = [t.encode() for t in self.texts]
        walks = 0
        stack = [(grammar.begin(tokenizer.encode("a").ids[:2]), b"")]
        while stack:
            state, before = stack.pop()
            walks += 1
            for token, piece in enumerate(grammar.pieces):
                going = bool(piece) and any(t.startswith(before + piece) for t in wanted)
                assert state.allowed[token] == ((before in wanted) if token == END else going), (before, piece)
                if going:
                    after = state.fork()
                    after.take(token)
                    stack.append((after, before + piece))
            assert state.accepting == (before in wanted)
            assert (state.over == "complete") == (before in wanted and before != b"ab")
        assert walks > 12

    def test_pieces_are_what_decoding_adds(self, tokenizer):
        grammar = Grammar(Constraint.matching("a"), tokenizer, VOCABULARY, (END,))
        for text in ("ab 花a", "中文 天", " a1", "é🚀" if tokenizer is not TOKENIZERS["letters"] else "xyz"):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if 2 not in ids or tokenizer is TOKENIZERS["byte-level"]:
                assert b"".join(grammar.pieces[i] for i in ids).decode().strip() == text.strip()
        assert grammar.pieces[BEGIN] == grammar.pieces[END] == b"" and not any(
            grammar.pieces[tokenizer.get_vocab_size() :]
        )

    def test_they_are_masked_before_the_filters(self):
        """Against the processors of ``transformers`` on logits that were masked first."""
        random_ = torch.Generator().manual_seed(0)
        logits, allowed = 3 * torch.randn(20, 99, generator=random_), torch.rand(20, 99, generator=random_) < 0.2
        settings = Sampling(temperature=0.7, top_k=8, top_p=0.8, min_p=0.05)
        expected = logits.masked_fill(~allowed, -torch.inf)
        for process in (
            theirs.TemperatureLogitsWarper(0.7), theirs.TopKLogitsWarper(8), theirs.TopPLogitsWarper(0.8),
            theirs.MinPLogitsWarper(0.05),
        ):  # fmt: skip
            expected = process(torch.zeros(20, 1, dtype=torch.int64), expected)
        assert torch.equal(ours.filtered(logits, settings, None, allowed), expected)

    def test_draws_are_of_the_model_among_what_is_allowed(self, model):
        tokenizer = TOKENIZERS["letters"]
        constraint = Constraint.matching("[a-h]")
        drawn = Counter(w.text for w in write(model, tokenizer, ["中"], replace(WARM, constraint=constraint), 1500))
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode("中").ids]))[0, -1].double() / WARM.temperature
        chances = logits[[tokenizer.token_to_id(c) for c in "abcdefgh"]].softmax(0).numpy() * 1500
        keep = chances > 5
        counts = np.array([drawn[c] for c in "abcdefgh"])
        assert keep.sum() >= 3 and counts.sum() == 1500
        assert (
            stats.chisquare([*counts[keep], counts[~keep].sum()], [*chances[keep], chances[~keep].sum()]).pvalue > 0.01
        )

    def test_the_next_token_among_what_is_allowed(self, model, tokenizer):
        settings = Sampling(temperature=1, constraint=Constraint.matching("[abc]x?"))
        tokens, rest = next_tokens(model, tokenizer, "花", 3, settings)
        texts = {t.text for t in tokens if t.probability > 0}
        assert texts <= {"a", "b", "c"} and len(texts) >= 2
        assert sum(t.probability for t in tokens) + rest == pytest.approx(1)


def spellings(text: bytes, pieces: dict[int, bytes]) -> list[list[int]]:
    """All ways to write a text in tokens."""
    found = [[]] if not text else []
    for token, piece in pieces.items():
        if piece and text.startswith(piece):
            found += [[token, *rest] for rest in spellings(text[len(piece) :], pieces)]
    return found


def log_probability(model, before: list[int], ids: list[int]) -> float:
    """Of the ids after others: the product of the probabilities, read at once."""
    with torch.no_grad():
        logs = model(torch.tensor([before + ids[:-1]])).double().log_softmax(-1)[0]
    return sum(logs[len(before) - 1 + i, token].item() for i, token in enumerate(ids))


class TestBeams:
    @pytest.mark.parametrize("length_penalty", [0.0, 1.0])
    def test_the_most_probable_of_all_spellings(self, tokenizer, length_penalty):
        """Wide beams against all token sequences of all choices, written out."""
        choices = ("ab", "abb", "花b", "c")
        for backbone, prompt in product(("gru", "transformer"), ("a", "b 花")):
            model = untrained(backbone)
            way = Sampling(beams=80, length_penalty=length_penalty, constraint=Constraint.one_of(choices))
            found = write(model, tokenizer, [prompt], way)[0]
            grammar = Grammar(Constraint.one_of(choices), tokenizer, VOCABULARY, (END,))
            mask = tokenizer.encode(prompt).special_tokens_mask
            before = [
                i for i, special in zip(tokenizer.encode(prompt).ids, mask, strict=True) if i != END or not special
            ]
            every = []
            for choice in choices:
                for ids in spellings(choice.encode(), dict(enumerate(grammar.pieces))):
                    closed = [*ids, END] if choice == "ab" else ids  # it may go on, so it ends by the end token only
                    every.append((log_probability(model, before, closed) / len(closed) ** length_penalty, closed))
            assert len(every) >= 4
            best = max(every)
            assert found.ids == best[1]
            assert sum(found.log_probabilities) / len(found.ids) ** length_penalty == pytest.approx(best[0], abs=1e-3)


class TestChoices:
    def test_probabilities_are_products(self, tokenizer):
        choices = ("ab", "abb", "花b", "c a", "天")
        for backbone, prompt in product(("gru", "transformer"), ("a", "b 花", "")):
            model = untrained(backbone)
            found = {c.text: c for c in score_choices(model, tokenizer, prompt, choices)}
            before = tokenizer.encode(prompt).ids
            before = before[:-1] if tokenizer is TOKENIZERS["byte-fallback"] else before or [BEGIN]
            own = {c: found[c].ids + ([END] if c == "ab" else []) for c in choices}
            logs = {c: log_probability(model, before, ids) for c, ids in own.items()}
            whole = sum(np.exp(v) for v in logs.values())
            for choice in choices:
                start = tokenizer.decode(before)
                assert tokenizer.decode(before + found[choice].ids) == start + choice
                assert found[choice].log_probability == pytest.approx(logs[choice], abs=1e-4)
                assert found[choice].probability == pytest.approx(np.exp(logs[choice]) / whole, rel=1e-3)
            ordered = [c.probability for c in score_choices(model, tokenizer, prompt, choices)]
            assert ordered == sorted(ordered, reverse=True) and sum(ordered) == pytest.approx(1)

    def test_tokens_are_the_tokenizers_own(self, model):
        tokenizer = TOKENIZERS["byte-level"]
        sea = next(c for c in score_choices(model, tokenizer, "She", [" sells sea", " x"]) if c.text == " sells sea")
        assert sea.ids == tokenizer.encode("She sells sea").ids[len(tokenizer.encode("She").ids) :]
        # 'on' is one token, so the tokenizer would not end a prompt after its 'o'
        assert score_choices(model, tokenizer, "o", ["n"])[0].ids == tokenizer.encode("n", add_special_tokens=False).ids

    def test_many_choices_in_several_batches_are_as_one(self, model, monkeypatch):
        choices = ["".join(c) for c in product("ab 花", repeat=3)]
        at_once = score_choices(model, TOKENIZERS["byte-level"], "a", choices)
        monkeypatch.setattr("weft.inference.choices.TOKENS_AT_ONCE", 70)
        apart = score_choices(model, TOKENIZERS["byte-level"], "a", choices)
        assert [c.text for c in apart] == [c.text for c in at_once] and len(apart) == 64
        assert [c.probability for c in apart] == pytest.approx([c.probability for c in at_once], rel=1e-4)

    def test_prompt_and_choice_must_fit_or_the_prompt_loses_its_beginning(self):
        model, tokenizer = untrained("transformer"), TOKENIZERS["byte-level"]
        for prompt in ("x" * 120, "x" * 200):
            with pytest.raises(DataError, match=r"must fit the model.s 128 tokens|at most 128 tokens"):
                score_choices(model, tokenizer, prompt, ["y" * 12, "z"])
            found = score_choices(model, tokenizer, prompt, ["y" * 12, "z"], cut=True)
            x = tokenizer.encode("x").ids[-1:]
            for choice in found:
                before = [BEGIN, *x * min(len(prompt), 128 + 1 - 12 - 1)]
                assert choice.log_probability == pytest.approx(log_probability(model, before, choice.ids), abs=1e-4)
        with pytest.raises(DataError, match="must fit the model's 128 tokens"):
            score_choices(model, tokenizer, "x", ["y" * 140], cut=True)


class TestManyTexts:
    prompts = ("ab", "花", "", "ab b 花 a", "b")

    @pytest.mark.parametrize("way", [Sampling(max_tokens=40), replace(WARM, seed=4), Sampling(max_tokens=40, beams=2)])
    def test_a_row_has_a_state_of_its_own(self, model, tokenizer, way):
        way = replace(way, constraint=Constraint.json_schema(PERSON))
        together = write(model, tokenizer, self.prompts, way)
        assert [w.ids for w in together] == [write(model, tokenizer, [p], way)[0].ids for p in self.prompts]
        assert len({w.text for w in together}) > 1 and len({len(w.ids) for w in together}) > 1

    def test_pieces_make_the_text(self, model, tokenizer):
        for seed in range(20):
            way = replace(WARM, seed=seed, constraint=Constraint.matching("([a花]|天b){2,4}(c|天)"))
            running = stream(model, tokenizer, "ab", way)
            assert "".join(running) == running.written.text and running.written.valid
            assert re.fullmatch("([a花]|天b){2,4}(c|天)", running.written.text)

    def test_samples(self, model, tokenizer):
        way = replace(WARM, temperature=20, constraint=Constraint.one_of(["花", "天a", "b"]))
        assert {w.text for w in write(model, tokenizer, ["ab"], way, samples=60)} == {"花", "天a", "b"}

    def test_tables(self, model, tokenizer, tmp_path):
        table = pa.table({"p": ["ab", None, "花", "b"]})
        way = replace(WARM, max_tokens=9, constraint=Constraint.matching("(天|花){3}|[ab]{20}"))
        told = write_table(model, tokenizer, table, "p", tmp_path / "o.parquet", way)
        rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
        assert rows[1] == {"row": 1, "text": None, "valid": None}
        for row in (rows[0], rows[2], rows[3]):
            assert row["valid"] == bool(re.fullmatch("(天|花){3}|[ab]{20}", row["text"]))
        assert told["invalid"] == sum(row["valid"] is False for row in rows)
        write_table(model, tokenizer, table, "p", tmp_path / "o.parquet", WARM)
        assert pq.read_table(tmp_path / "o.parquet").column_names == ["row", "text"]


class TestLettersThatAreNotThere:
    """A tokenizer of few letters: no way is begun that ends in nothing."""

    few = letters('abc"{}:,')

    def test_an_expression_keeps_to_what_can_be_written(self, model):
        way = replace(WARM, temperature=20, constraint=Constraint.matching("a花|b[^ac]|bc|aaz*"))
        texts = {w.text for w in write(model, self.few, ["a"], way, samples=40)}
        assert {"bc", "aa"} <= texts and all(re.fullmatch("a花|b[^ac]|bc|aaz*", t) for t in texts)

    @pytest.mark.parametrize(
        ("constraint", "words"),
        [
            (Constraint.one_of(["ab", "a花"]), "'a花': must be a choice that this tokenizer can write"),
            (Constraint.matching("a花|z"), "must be a text that this tokenizer can write"),
            (Constraint.matching("(花)?"), "allows the empty text only"),
            (Constraint.json_schema({"const": "花"}), "letters that this tokenizer has not: '花'"),
            (Constraint.json_schema({"type": "array"}), "must be a text|has not: '\\[', '\\]'"),
        ],
    )
    def test_what_cannot_be_written_is_said(self, model, constraint, words):
        with pytest.raises(UsageError, match=words):
            write(model, self.few, ["a"], Sampling(constraint=constraint))

    def test_a_way_that_ends_in_nothing_is_reported(self, model):
        constraint = Constraint.json_schema({"type": "string", "pattern": "^a花$"})
        done = write(model, self.few, ["a"], Sampling(constraint=constraint))[0]
        assert (done.text, done.stopped, done.valid) == ('"a', "stuck", False)

    @pytest.mark.parametrize("beams", [1, 3])
    def test_a_space_that_is_left_out(self, beams):
        """Llama's decoder leaves out the first space of a text: one that begins with a space takes two."""
        tokenizer, spaced = TOKENIZERS["byte-fallback"], Constraint.one_of([" a", " b花"])
        for backbone in ("gru", "transformer"):
            model = untrained(backbone)
            for done in write(model, tokenizer, ["", "a"], Sampling(beams=beams, constraint=spaced)):
                assert done.text in (" a", " b花") and done.valid
            for choice in score_choices(model, tokenizer, "", spaced.choices):
                assert tokenizer.decode([BEGIN, *choice.ids]) == choice.text


class TestBadInput:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: Constraint.one_of([]), r"at least one text.*Got \[\]"),
            (lambda: Constraint.one_of(["a", ""]), "none of them empty"),
            (lambda: Constraint.one_of(["a", "b", "a"]), "must differ. Got 'a' twice"),
            (lambda: Constraint.one_of(["a\ud800"]), "half a surrogate pair"),
            (lambda: Constraint.matching("(a"), "unclosed group"),
            (lambda: Constraint.matching("*"), "repetition operator missing expression"),
            (lambda: Constraint.matching("a(?=b)"), "look-around"),
            (lambda: Constraint.matching(r"(a)\1"), "backreferences are not supported"),
            (lambda: Constraint.matching("a$b"), r"depends on its neighbours"),
            (lambda: Constraint.json_schema({"type": "strin"}), "Invalid type: strin"),
            (lambda: Constraint.json_schema({"minLenght": 3}), "'minLenght' is no keyword.* Did you mean 'minLength'"),
            (lambda: Constraint.json_schema({"properties": {"a": {"not": {}}}}), "properties.a: 'not' is a keyword"),
            (lambda: Constraint.json_schema({"items": {"uniqueItems": True}}), "items: 'uniqueItems' is a keyword"),
            (lambda: Constraint.json_schema({"anyOf": [{}, 3]}), r"anyOf\[1\]: a schema must be an object"),
            (lambda: Constraint.json_schema({"$ref": "#/$defs/a"}), "does not exist"),
            (lambda: Constraint.json_schema({"$ref": "https://a.b/c"}), "not present"),
            (lambda: Constraint.json_schema({"type": "integer", "minimum": 5, "maximum": 1}), "Unsatisfiable"),
            (lambda: Constraint.json_schema({"oneOf": [{"minimum": 1}, {"maximum": 3}]}), "use anyOf"),
            (lambda: Constraint.json_schema({"x-guidance": {"lenient": True}}), "'x-guidance' would change"),
            (lambda: Constraint.json_schema(False), "schema is false"),
            (lambda: Sampling(stop="x", constraint=Constraint.matching("a")), "a stop string would break it"),
            (lambda: Sampling(stop="\ud83d"), "a stop string must be letters"),
        ],
    )
    def test_it_is_named(self, make, words):
        with pytest.raises(UsageError, match=words):
            make()

    def test_a_file_that_is_no_schema(self, tmp_path):
        for name, content, words in (("a.json", "{", "must be a JSON file"), ("b.json", "[1]", "must be an object")):
            (tmp_path / name).write_text(content)
            with pytest.raises((DataError, UsageError), match=words):
                Constraint.json_schema(tmp_path / name)
        with pytest.raises(DataError, match=r"none\.json: must be a JSON file"):
            Constraint.json_schema(tmp_path / "none.json")

    def test_an_expression_of_nothing(self, model, tokenizer):
        for pattern, words in (("", "the empty text only"), (r"x[^\s\S]", "It can write none")):
            with pytest.raises(UsageError, match=words):
                write(model, tokenizer, ["a"], Sampling(constraint=Constraint.matching(pattern)))

    def test_a_decoder_that_reads_tokens_together(self, model):
        tokenizer = Tokenizer(kinds.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
        tokenizer.decoder = decoders.WordPiece()
        with pytest.raises(UsageError, match="Got the decoder WordPiece"):
            write(model, tokenizer, ["a"], Sampling(constraint=Constraint.matching("a")))
