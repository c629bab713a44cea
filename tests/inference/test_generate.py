"""Writing: equal to ``transformers``, distributed as it must be, the same in any batch, whole in pieces."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats
from tests.writers import (
    BEGIN,
    END,
    TEXTS,
    VOCABULARY,
    byte_fallback,
    byte_level,
    greedy,
    memorised,
    original,
    untrained,
)
from transformers.generation import logits_process as theirs

from weft.errors import CheckpointError, DataError, UsageError
from weft.inference import sampling as ours
from weft.inference.beams import Search
from weft.inference.generate import Sampling, next_tokens, stream, write
from weft.inference.letters import Letters, Line
from weft.inference.write_table import write_table
from weft.models.checkpoints import load_hf
from weft.models.language import LanguageConfig, LanguageModel
from weft.models.pretrained import load_language_model
from weft.models.transformer import TransformerConfig

CAT, FLOWERS = TEXTS[0], TEXTS[2]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request, tmp_path_factory):
    """The original, ours with the same weights, its tokenizer."""
    folder = tmp_path_factory.mktemp("hf") / request.param
    source = original(request.param)
    source.save_pretrained(folder)
    byte_level(begin=request.param == "llama").save(str(folder / "tokenizer.json"))
    return source, *load_language_model(folder)


@pytest.fixture(scope="module")
def learnt():
    """A model that knows TEXTS by heart, and its tokenizer."""
    tokenizer = byte_level(begin=True)
    return memorised(TEXTS, tokenizer), tokenizer


@pytest.fixture(scope="module", params=["transformer", "gru", "lstm"])
def drawing(request):
    """Models whose draws differ from seed to seed, and end after a few tokens or many."""
    return untrained(request.param, ends=(END, *range(20, 40))), byte_level(begin=True)


WARM = Sampling(max_tokens=20, temperature=1.5, seed=3)


class TestSettings:
    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"temperature": -0.1}, "temperature must be 0 .* or above. Got -0.1"),
            ({"temperature": float("nan")}, "temperature must be"),
            ({"temperature": float("inf")}, "temperature must be"),
            ({"temperature": 1, "top_p": 0.0}, "top_p must be above 0 and at most 1"),
            ({"temperature": 1, "top_p": 1.1}, "top_p must be above 0 and at most 1"),
            ({"temperature": 1, "top_k": 0}, "top_k must be a whole number above 0"),
            ({"temperature": 1, "min_p": 1.5}, "min_p must be from 0"),
            ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
            ({"max_tokens": 0}, "max_tokens must be a whole number above 0"),
            ({"beams": 0}, "beams must be a whole number above 0"),
            ({"beams": 2, "length_penalty": float("nan")}, "length_penalty must be a number"),
            ({"stop": ("",)}, "stop must be texts of at least one letter"),
            ({"seed": -1}, "seed must be a whole number from 0"),
            ({"top_p": 0.9}, "top_p needs a temperature above 0"),
            ({"top_k": 5}, "top_k needs a temperature above 0"),
            ({"min_p": 0.1}, "min_p needs a temperature above 0"),
            ({"beams": 3, "temperature": 1}, "nothing is drawn by temperature"),
            ({"length_penalty": 2.0}, "length_penalty is for beam search"),
        ],
    )
    def test_what_cannot_be_or_changes_nothing_is_refused(self, wrong, words):
        with pytest.raises(UsageError, match=words):
            Sampling(**wrong)

    def test_one_stop_string_needs_no_list(self):
        assert Sampling(stop="abc").stop == ("abc",) and Sampling(stop=["a", "b"]).stop == ("a", "b")


class TestFilters:
    """Functions on logits against the logits processors of ``transformers``."""

    logits = 3 * torch.randn(40, 211, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, 211, (40, 30), generator=torch.Generator().manual_seed(1))

    @pytest.mark.parametrize("k", [1, 7, 211, 500])
    def test_top_k(self, k):
        assert torch.equal(ours.top_k(self.logits, k), theirs.TopKLogitsWarper(k)(self.ids, self.logits))

    @pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999])
    def test_top_p(self, p):
        assert torch.equal(ours.top_p(self.logits, p), theirs.TopPLogitsWarper(p)(self.ids, self.logits))

    @pytest.mark.parametrize("p", [0.01, 0.3, 1.0])
    def test_min_p(self, p):
        assert torch.equal(ours.min_p(self.logits, p), theirs.MinPLogitsWarper(p)(self.ids, self.logits))

    @pytest.mark.parametrize("penalty", [0.5, 1.2, 3.0])
    def test_repetition(self, penalty):
        seen = torch.zeros_like(self.logits, dtype=torch.bool).scatter(1, self.ids, True)
        expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(self.ids, self.logits)
        assert torch.equal(ours.repeated(self.logits, seen, penalty), expected)

    def test_all_in_their_order(self):
        settings = Sampling(temperature=0.7, top_k=50, top_p=0.8, min_p=0.05, repetition_penalty=1.3)
        seen = torch.zeros_like(self.logits, dtype=torch.bool).scatter(1, self.ids, True)
        expected = self.logits
        for process in (
            theirs.RepetitionPenaltyLogitsProcessor(1.3), theirs.TemperatureLogitsWarper(0.7),
            theirs.TopKLogitsWarper(50), theirs.TopPLogitsWarper(0.8), theirs.MinPLogitsWarper(0.05),
        ):  # fmt: skip
            expected = process(self.ids, expected)
        assert torch.equal(ours.filtered(self.logits, settings, seen), expected)

    def test_a_draw_follows_the_probabilities(self):
        """10,000 draws of one row against its softmax, filtered and not: chi-square."""
        logits = self.logits[:1, :12] / 3
        for settings in (
            Sampling(temperature=1.0),
            Sampling(temperature=0.6, top_k=6),
            Sampling(temperature=1, top_p=0.7),
        ):
            left = ours.filtered(logits, settings)
            random = np.random.default_rng(5)
            drawn = torch.cat([ours.draw(left.expand(1000, -1), [random] * 1000) for _ in range(10)])
            counts = np.bincount(drawn.numpy(), minlength=12)
            expected = 10_000 * left[0].double().softmax(0).numpy()
            assert not counts[expected == 0].any()
            assert stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.01


class TestEqualToTransformers:
    prompts = ("The cat", "我喜欢", "She sells sea shells on the", "x")

    def both(self, pair, prompt, settings, ends=(END,), **more):
        source, model, tokenizer = pair
        model.config, before = replace(model.config, end=ends), model.config
        ids = torch.tensor([tokenizer.encode(prompt).ids])
        found = source.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=settings.max_tokens, do_sample=False,
            eos_token_id=list(ends), pad_token_id=END, **more,
        )  # fmt: skip
        try:
            return write(model, tokenizer, [prompt], settings)[0], found[0, ids.shape[1] :].tolist()
        finally:
            model.config = before

    @pytest.mark.parametrize("penalty", [1.0, 1.4])
    def test_greedy(self, pair, penalty):
        settings = Sampling(max_tokens=30, repetition_penalty=penalty)
        for prompt in self.prompts:
            mine, expected = self.both(pair, prompt, settings, repetition_penalty=penalty)
            assert mine.ids == expected

    @pytest.mark.parametrize(
        ("beams", "length_penalty", "repetition_penalty"),
        [(2, 1.0, 1.0), (4, 0.0, 1.0), (4, 2.0, 1.0), (5, -1.0, 1.0), (3, 1.0, 1.5)],
    )
    def test_beams(self, pair, beams, length_penalty, repetition_penalty):
        penalties = {"length_penalty": length_penalty, "repetition_penalty": repetition_penalty}
        settings = Sampling(max_tokens=12, beams=beams, **penalties)
        stopped = set()
        for prompt in self.prompts:
            for ends in ((END,), (END, 40, 75, 120), tuple(range(10, 60))):
                mine, expected = self.both(pair, prompt, settings, ends, num_beams=beams, **penalties)
                assert mine.ids == expected, (prompt, ends)
                stopped.add(mine.stopped)
        assert "length" in stopped and ("end" in stopped or length_penalty > 1)

    def test_the_log_probabilities_are_the_models_own(self, pair):
        source, model, tokenizer = pair
        for settings in (Sampling(max_tokens=9), replace(WARM, max_tokens=9, top_k=9), Sampling(max_tokens=9, beams=3)):
            mine = write(model, tokenizer, [CAT], settings)[0]
            ids = tokenizer.encode(CAT).ids
            with torch.no_grad():
                scores = source(torch.tensor([ids + mine.ids])).logits[0].log_softmax(-1)
            expected = [scores[len(ids) - 1 + i, token].item() for i, token in enumerate(mine.ids)]
            assert mine.log_probabilities == pytest.approx(expected, abs=1e-4)

    def test_next_tokens(self, pair):
        source, model, tokenizer = pair
        tokens, rest = next_tokens(model, tokenizer, CAT, 10)
        with torch.no_grad():
            expected = source(torch.tensor([tokenizer.encode(CAT).ids])).logits[0, -1].softmax(-1).topk(10)
        assert [t.id for t in tokens] == expected.indices.tolist()
        assert [t.probability for t in tokens] == pytest.approx(expected.values.tolist(), abs=1e-6)
        assert sum(t.probability for t in tokens) + rest == pytest.approx(1, abs=1e-12) and 0 < rest < 1


class TestBatches:
    prompts = ("The cat sat", "我", "She sells sea shells on", "", "Stop here. Do not stop", "The cat sat")

    @pytest.mark.parametrize(
        "settings",
        [
            Sampling(max_tokens=20),
            WARM,
            replace(WARM, top_p=0.8, repetition_penalty=1.2),
            Sampling(max_tokens=12, beams=3, length_penalty=0.0),
        ],
        ids=["greedy", "drawn", "nucleus", "beams"],
    )
    def test_a_text_is_the_same_alone_and_in_any_batch(self, drawing, settings):
        model, tokenizer = drawing
        together = write(model, tokenizer, self.prompts, settings)
        backwards = write(model, tokenizer, self.prompts[::-1], settings)[::-1]
        for prompt, one, other in zip(self.prompts, together, backwards, strict=True):
            alone = write(model, tokenizer, [prompt], settings)[0]
            assert alone.ids == one.ids == other.ids and alone.text == one.text
            assert alone.log_probabilities == pytest.approx(one.log_probabilities, abs=1e-4)
        assert together[0].ids == together[-1].ids
        assert len({tuple(w.ids) for w in together}) > 3 and len({len(w.ids) for w in together}) > 1

    def test_more_than_one_batch(self, learnt, monkeypatch):
        model, tokenizer = learnt
        whole = write(model, tokenizer, self.prompts, WARM)
        monkeypatch.setattr("weft.inference.generate.TOKENS_AT_ONCE", 60)
        assert [w.ids for w in write(model, tokenizer, self.prompts, WARM)] == [w.ids for w in whole]

    def test_seeds_and_samples(self, drawing):
        model, tokenizer = drawing
        several = write(model, tokenizer, ["The", "我"], WARM, samples=3)
        assert len({tuple(w.ids) for w in several}) == 6
        for i in range(3):
            again = write(model, tokenizer, ["我"], replace(WARM, seed=WARM.seed + i))[0]
            assert again.ids == several[3 + i].ids

    def test_prompts_do_not_share_their_random_numbers(self, learnt):
        """Flat distributions after two prompts: the same numbers would draw the same tokens."""
        model, tokenizer = learnt
        hot = Sampling(max_tokens=12, temperature=1e6)
        one, other = write(model, tokenizer, ["The", "She"], hot)
        assert one.ids != other.ids

    def test_drawn_frequencies_are_those_of_the_filtered_softmax(self, drawing):
        model, tokenizer = drawing
        settings = Sampling(max_tokens=1, temperature=2.0, top_k=8, top_p=0.95)
        drawn = [w.ids[0] for w in write(model, tokenizer, ["The"], settings, samples=1500)]
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode("The").ids]))[:, -1]
        expected = 1500 * ours.filtered(logits, settings)[0].double().softmax(0).numpy()
        counts = np.bincount(drawn, minlength=VOCABULARY)
        assert not counts[expected == 0].any() and (expected > 5).sum() > 3
        assert stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.01

    def test_no_dropout_while_it_writes_and_the_model_keeps_its_mode(self):
        model, tokenizer = untrained("transformer", dropout=0.5).train(), byte_level()
        one, other = (write(model, tokenizer, ["The"], Sampling(max_tokens=9))[0].ids for _ in range(2))
        assert one == other and model.training
        assert next_tokens(model, tokenizer, "The") == next_tokens(model, tokenizer, "The") and model.training

    def test_an_end_that_is_not_among_the_best_beams_is_none(self):
        line = Line(byte_level(), [5], (END,), (), 9, "length")
        beam = Search(line, 2, 1.0)
        candidates = [(-1.0, 0, END, -1.0), (-1.5, 0, 70, -1.5), (-2.0, 0, END, -2.0), (-3.0, 0, 71, -3.0)]
        assert beam.grow(candidates) == [0, 0] and not beam.done
        assert [b.score for b in beam.finished] == [-1.0] and [b.line.ids for b in beam.beams] == [[70], [71]]
        assert beam.grow([(-1.6, 0, END, -0.1), (-4.0, 1, 72, -1.0)]) == [1, 1] and beam.done
        assert beam.best.ids == [70, END]  # -0.8 a token; what is growing has -2


class TestText:
    def test_what_was_learnt_comes_back(self, learnt):
        model, tokenizer = learnt
        for text in TEXTS:
            for settings in (Sampling(), Sampling(beams=3)):
                start = text.split(" ")[0][:4]
                done = write(model, tokenizer, [start], settings)[0]
                assert (start + done.text, done.stopped, done.ids[-1]) == (text, "end", END)

    def test_an_empty_prompt_begins_a_text(self, learnt):
        model, tokenizer = learnt
        assert write(model, tokenizer, [""])[0].text in TEXTS
        assert write(model, byte_level(), [""])[0].text in TEXTS  # a tokenizer that puts nothing before a text
        nameless = replace(model.config, begin=None, end=())
        model.config, before = nameless, model.config
        try:
            with pytest.raises(DataError, match="must hold at least one token"):
                write(model, byte_level(), [""])
        finally:
            model.config = before

    @pytest.mark.parametrize("beams", [1, 3])
    def test_stop_strings(self, learnt, beams):
        model, tokenizer = learnt
        spread = len(tokenizer.encode("公园", add_special_tokens=False).ids)
        assert spread > 2  # letters and stop strings lie across tokens
        for text, start, stop, rest in [
            (FLOWERS, 4, ("公园",), "天的花。今天天气很好，我们去"),
            (FLOWERS, 4, ("园看", "公园看"), "天的花。今天天气很好，我们去"),  # the earlier one wins
            (FLOWERS, 4, ("气", "没有"), "天的花。今天天"),
            (CAT, 7, (", and the d",), " sat on the mat"),
            (CAT, 7, ("mat, and the cat", "on the cat"), CAT[7:].removesuffix("on the cat.")),
            (CAT, 7, ("\ufffd", "zebra"), CAT[7:]),
        ]:
            done = write(model, tokenizer, [text[:start]], Sampling(stop=stop, beams=beams))[0]
            assert done.text == rest
            assert done.stopped == ("end" if text.endswith(rest) else "stop")

    def test_half_a_letter_is_no_stop_and_never_comes_out(self, learnt):
        """Bytes of a letter that are not all there decode to U+FFFD, which must neither stop nor be shown."""
        model, tokenizer = learnt
        for most in range(1, 40):
            done = write(model, tokenizer, [FLOWERS[:3]], Sampling(max_tokens=most, stop=("\ufffd",)))[0]
            assert FLOWERS[3:].startswith(done.text) and done.stopped in ("length", "end")
            pieces = stream(model, tokenizer, FLOWERS[:3], Sampling(max_tokens=most))
            assert "".join(pieces) == done.text

    @pytest.mark.parametrize("stop", [(), ("公园",), ("花", "天气很差"), ("the dog s", " on the cat!"), ("zz",)])
    def test_pieces_make_the_whole_and_none_is_taken_back(self, drawing, stop):
        model, tokenizer = drawing
        for prompt in ("The cat", FLOWERS[:2], "", "花"):
            for settings in (Sampling(stop=stop), replace(WARM, stop=stop), Sampling(max_tokens=9, beams=2, stop=stop)):
                running = stream(model, tokenizer, prompt, settings)
                so_far = ""
                for piece in running:
                    assert piece
                    so_far += piece
                    assert not any(s in so_far for s in stop)
                assert so_far == running.written.text
                assert running.written.ids == write(model, tokenizer, [prompt], settings)[0].ids

    def test_pieces_come_as_soon_as_they_are_certain(self, learnt):
        model, tokenizer = learnt
        pieces = list(stream(model, tokenizer, FLOWERS[:2], Sampling()))
        assert "".join(pieces) == FLOWERS[2:] and len(pieces) >= len(FLOWERS[2:]) / 2
        held = list(stream(model, tokenizer, CAT[:7], Sampling(stop=(" sat on the hat", "mat, and the cow"))))
        assert "".join(held) == CAT[7:]
        assert " sat on the " in held  # held back whole until it could not become the stop string any more

    @pytest.mark.parametrize("tokenizer", [byte_level(), byte_fallback()], ids=["byte-level", "byte-fallback"])
    def test_letters_of_any_tokenizer(self, tokenizer):
        for before, text in [("a", " b a花b"), ("花", "中文 a"), ("", "a b"), ("a", "é👩‍🚀b"), ("b", "\ufffda")]:
            first = tokenizer.encode(before, add_special_tokens=False).ids
            ids = tokenizer.encode(before + text, add_special_tokens=False).ids
            assert ids[: len(first)] == first
            letters = Letters(tokenizer, first)
            pieces = [letters.take(i) for i in ids[len(first) :]]
            assert "".join(pieces) + letters.finish(cut=True) == text
            assert len(letters._known + letters._new) <= 8  # earlier tokens are not decoded again and again
            assert not any(piece in "\ufffd" for piece in pieces if piece and "\ufffd" not in text)

    def test_bytes_that_are_no_letter_are_shown_as_such_and_keep_nothing_back(self):
        tokenizer = byte_level()
        half, a = tokenizer.encode("花").ids[:1], tokenizer.encode("a").ids
        line = Line(tokenizer, a, (END,), (), 9, "length")
        for token in [*half, *a, *half, *half, *a, *half]:
            line.take(token, 0.0)
        assert line.text == "\ufffda\ufffd\ufffda" and line.stopped is None
        line.take(END, 0.0)
        assert line.text == "\ufffda\ufffd\ufffda\ufffd" and line.stopped == "end"

    def test_what_a_tokenizer_puts_after_a_text_is_not_read(self, learnt):
        model, tokenizer = learnt[0], byte_fallback()
        closed = write(model, tokenizer, ["ab"], Sampling(max_tokens=5))[0].ids
        tokenizer.post_processor = byte_level(begin=True).post_processor
        assert write(model, tokenizer, ["ab"], Sampling(max_tokens=5))[0].ids == closed


class TestContext:
    def test_a_prompt_that_is_too_long_is_refused_or_cut(self, pair):
        _, model, tokenizer = pair
        long = "ab " * 60
        count = len(tokenizer.encode(long).ids)
        with pytest.raises(DataError, match=rf"at most 64 tokens for this model. Got {count}. Shorten it, or allow"):
            write(model, tokenizer, ["The", long], Sampling(max_tokens=5))
        done = write(model, tokenizer, [long], Sampling(max_tokens=5), cut=True)[0]
        kept = tokenizer.encode(long).ids[done.cut :]
        first = [BEGIN] if tokenizer.encode("a").ids[0] == BEGIN else []
        assert done.cut == count - 60 and done.stopped == "length"
        shape = torch.tensor([[*first, *kept[len(first) :]]])
        assert shape.shape == (1, 60) and greedy(model, shape, 5)[0].tolist()[: len(done.ids)] == done.ids
        with torch.no_grad():
            expected = model(shape)[0, -1].log_softmax(-1)[done.ids[0]].item()
        assert done.log_probabilities[0] == pytest.approx(expected, abs=1e-5)

    def test_writing_ends_where_the_positions_end(self, pair):
        _, model, tokenizer = pair
        model.config, before = replace(model.config, end=()), model.config
        try:
            done, other = write(model, tokenizer, ["The cat", "x"], Sampling(max_tokens=500))
            beams = write(model, tokenizer, ["The cat"], Sampling(max_tokens=500, beams=2))[0]
        finally:
            model.config = before
        assert {done.stopped, other.stopped, beams.stopped} == {"context"}
        assert len(done.ids) == len(beams.ids) == 65 - len(tokenizer.encode("The cat").ids)

    def test_a_recurrent_network_has_no_end(self):
        model, tokenizer = untrained("lstm"), byte_level()
        done = write(model, tokenizer, ["ab " * 100], replace(WARM, max_tokens=3))[0]
        assert len(done.ids) == 3 or done.stopped == "end"


class TestNextTokens:
    def test_they_are_spelt_readably(self, learnt):
        model, tokenizer = learnt
        everything, rest = next_tokens(model, tokenizer, "The", 10_000)
        assert len(everything) == VOCABULARY and rest == 0
        names = {t.id: t.text for t in everything}
        assert names[BEGIN] == "<s>" and names[END] == "</s>"
        first = tokenizer.encode("花", add_special_tokens=False).ids[0]
        assert names[first].startswith("\\xe8") and "\ufffd" not in "".join(names.values())
        assert sum(t.probability for t in everything) == pytest.approx(1)
        assert [t.probability for t in everything] == sorted((t.probability for t in everything), reverse=True)

    def test_of_the_settings_where_they_are_given(self, learnt):
        model, tokenizer = learnt
        tokens, rest = next_tokens(model, tokenizer, "The", 5, Sampling(temperature=3.0, top_k=3))
        assert rest == 0 and [t.probability > 0 for t in tokens] == [True, True, True, False, False]

    def test_none_is_refused(self, learnt):
        with pytest.raises(UsageError, match=r"above 0\. Got 0"):
            next_tokens(*learnt, "The", 0)


class TestBadInput:
    def test_an_encoder_cannot_write(self):
        reader = LanguageModel(LanguageConfig(TransformerConfig(16, 1, 2), VOCABULARY)).eval()
        headless = LanguageConfig(TransformerConfig(16, 1, 2, attention="writing"), VOCABULARY, output="none")
        for model, words in ((reader, "reads cannot write"), (LanguageModel(headless).eval(), "output matrix")):
            for attempt in (lambda m: write(m, byte_level(), ["a"]), lambda m: stream(m, byte_level(), "a"),
                            lambda m: next_tokens(m, byte_level(), "a")):  # fmt: skip
                with pytest.raises(UsageError, match=words):
                    attempt(model)

    def test_half_a_surrogate_pair(self, learnt):
        with pytest.raises(DataError, match="surrogate pair at letter 3"):
            write(*learnt, ["ab\ud800"])

    def test_samples_that_would_all_be_the_same(self, learnt):
        with pytest.raises(UsageError, match="need a temperature"):
            write(*learnt, ["a"], Sampling(), samples=2)
        with pytest.raises(UsageError, match="samples must be"):
            write(*learnt, ["a"], WARM, samples=0)

    @pytest.mark.parametrize("beams", [1, 2])
    def test_damaged_weights(self, beams):
        model = untrained("lstm")
        with torch.no_grad():
            model.output.weight[5] = torch.nan
        with pytest.raises(CheckpointError, match="finite logits"):
            write(model, byte_level(), ["a"], Sampling(beams=beams))

    def test_a_checkpoint_without_a_tokenizer_or_of_another_kind(self, tmp_path):
        original("gpt2").save_pretrained(tmp_path / "bare")
        with pytest.raises(CheckpointError, match=r"must hold tokenizer\.json"):
            load_language_model(tmp_path / "bare")
        assert load_hf(tmp_path / "bare").tokenizer is None
        with pytest.raises(CheckpointError, match="no such folder"):
            load_language_model("some/name")  # would be a hub id: nothing is fetched
        (tmp_path / "bare" / "columns.json").write_text("{}")
        with pytest.raises(CheckpointError, match="weft predict"):
            load_language_model(tmp_path / "bare")


class TestTables:
    def test_texts_in_the_order_of_the_table(self, learnt, tmp_path):
        model, tokenizer = learnt
        prompts = ["She sells", None, "我喜欢", "The cat sat on the", "Stop " * 140, "", "The"]
        table = pa.table({"id": range(7), "prompt": prompts})
        told = write_table(model, tokenizer, table, "prompt", tmp_path / "out.parquet")
        found = pq.read_table(tmp_path / "out.parquet")
        assert found.column_names == ["row", "text"] and found["row"].to_pylist() == [0, 1, 2, 3, 5, 6]
        kept = [p for i, p in enumerate(prompts) if i != 4]
        alone = [None if p is None else write(model, tokenizer, [p])[0].text for p in kept]
        assert found["text"].to_pylist() == alone
        assert (told["rows"], told["written"], told["missing"], told["rejected"]) == (7, 5, 1, 1)
        assert told["stopped"] == {"end": 5}
        aside = pq.read_table(tmp_path / "out.rejected.parquet").to_pylist()
        assert aside[0]["row"] == 4 and "at most 128 tokens" in aside[0]["reason"]
        told = write_table(model, tokenizer, table, "prompt", tmp_path / "out.parquet", cut=True)
        assert told["rejected"] == 0 and not (tmp_path / "out.rejected.parquet").exists()

    def test_cells_that_are_not_utf8_and_lines_that_are_no_rows_cost_their_row(self, learnt, tmp_path):
        (tmp_path / "t.csv").write_bytes(b"prompt,x\nThe cat,1\n\xff\xfe,2\nShe,3\na,b,c,d\nStop,5\n")
        told = write_table(*learnt, tmp_path / "t.csv", "prompt", tmp_path / "out.jsonl", Sampling(max_tokens=3))
        assert (told["rows"], told["written"], told["rejected"]) == (5, 3, 2)
        reasons = pq.read_table(tmp_path / "out.rejected.parquet")
        assert reasons["row"].to_pylist() == [1, 3] and "UTF-8" in reasons["reason"][0].as_py()

    def test_whole_or_not_at_all(self, learnt, tmp_path):
        model, tokenizer = learnt
        table = pa.table({"prompt": ["The"] * 3, "n": [1, 2, 3]})
        (tmp_path / "out.csv").write_text("before")
        damaged = untrained("lstm")
        with torch.no_grad():
            damaged.output.weight[5] = torch.nan
        for attempt, error, words in [
            (lambda: write_table(damaged, tokenizer, table, "prompt", tmp_path / "out.csv"), CheckpointError, "finite"),
            (lambda: write_table(model, tokenizer, table, "promt", tmp_path / "out.csv"), DataError, "Did you mean"),
            (lambda: write_table(model, tokenizer, table, "n", tmp_path / "out.csv"), DataError, "must hold texts"),
            (lambda: write_table(model, tokenizer, table, "prompt", tmp_path / "o.txt"), UsageError, "must end in"),
        ]:
            with pytest.raises(error, match=words):
                attempt()
        assert (tmp_path / "out.csv").read_text() == "before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("prompts", [["a b c"], ["a", "one two"]])
def test_beyond_the_context_the_last_half_is_read_anew(prompts):
    torch.manual_seed(0)
    tokenizer = byte_level(begin=True)
    shape = TransformerConfig(16, 2, 2, attention="writing", max_positions=12)
    model = LanguageModel(LanguageConfig(shape, VOCABULARY, begin=BEGIN)).eval()
    with torch.no_grad():
        model.table.weight.mul_(3)
    found = write(model, tokenizer, prompts, Sampling(max_tokens=40, temperature=0), cut=True)
    assert [w.stopped for w in found] == ["length"] * len(prompts)
    texts = [tokenizer.encode(p).ids for p in prompts]
    read, place = [list(ids) for ids in texts], 0
    for place in range(40):  # by hand: every step from nothing
        for ids, window, written in zip(texts, read, found, strict=True):
            with torch.no_grad():
                token = int(model(torch.tensor([window]))[0, -1].argmax())
            assert token == written.ids[place], place
            ids.append(token)
            window.append(token)
        if max(map(len, read)) > 12:  # one is full: those that no longer fit are cut, the others are as they were
            read = [ids if len(ids) <= 12 else [BEGIN, *ids[-5:]] for ids in (list(ids) for ids in texts)]
    without = write(model, tokenizer, prompts, Sampling(max_tokens=40, temperature=0))
    assert all(a.stopped == "context" and b.ids[: len(a.ids)] == a.ids for a, b in zip(without, found, strict=True))
