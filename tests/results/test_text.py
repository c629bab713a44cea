"""Figures of texts are those of sacrebleu, rouge-score and the scripts of SQuAD and MLQA, in batches of any size."""

import json
import random
import re
import string
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu, corpus_chrf

from weft.errors import DataError, UsageError
from weft.results.metrics import METRICS
from weft.results.text import FAMILIES, TextScores, language_of, normalized_answer, rouge

DATA = Path(__file__).parents[3] / "shared" / "data"

# the example of sacrebleu's own README
README_REFERENCES = [
    ["The dog bit the man.", "The dog had bit the man."],
    ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first.", "The man had bitten the dog."],
]
README_WRITTEN = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]


def named(written: str, reference: str) -> dict[str, float]:
    return dict(zip(FAMILIES["rouge"], rouge(written, reference), strict=True))


def of(written, references, families=("bleu", "chrf"), language=None, batch=None):
    scores = TextScores(families, language)
    step = batch or len(written)
    for start in range(0, len(written), step):
        scores.add(written[start : start + step], references[start : start + step])
    return scores


def values(scores):
    return {key: metric(np.ones(scores.rows)) for key, metric in scores.metrics().items()}


def disturbed(texts, units, seed=0):
    """Texts with some units left out, doubled or swapped, as a poor writer gives."""
    draw = random.Random(seed)
    found = []
    for text in texts:
        kept = [u for u in units(text) for _ in range(draw.choice([0, 1, 1, 1, 1, 2]))]
        if len(kept) > 3:
            i = draw.randrange(len(kept) - 1)
            kept[i], kept[i + 1] = kept[i + 1], kept[i]
        found.append((" " if " " in text else "").join(kept))
    return found


@pytest.fixture(scope="module")
def pairs():
    file = DATA / "translation_en_zh.parquet"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    table = pq.read_table(file).slice(0, 300)
    return {"en": table["en"].to_pylist(), "zh": table["zh"].to_pylist()}


class TestSacrebleu:
    def test_the_example_of_its_readme(self):
        scores = of(README_WRITTEN, README_REFERENCES)
        assert round(values(scores)["bleu"], 2) == 48.53
        assert scores.signatures()["bleu"].startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")
        assert scores.signatures()["chrf"].startswith("nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")

    @pytest.mark.parametrize(("language", "tokenizer"), [("en", "13a"), ("zh", "zh")])
    @pytest.mark.parametrize("batch", [1, 7, None])
    def test_corpus_figures_of_real_texts_in_any_batches(self, pairs, language, tokenizer, batch):
        references = pairs[language]
        written = disturbed(references, str.split if language == "en" else list)
        scores = of(written, [[r] for r in references], batch=batch)
        assert values(scores)["bleu"] == pytest.approx(corpus_bleu(written, [references], tokenize=tokenizer).score)
        assert values(scores)["chrf"] == pytest.approx(corpus_chrf(written, [references]).score)
        assert f"tok:{tokenizer}" in scores.signatures()["bleu"] and 5 < values(scores)["bleu"] < 95

    def test_rows_with_different_numbers_of_references(self):
        written = ["the cat sat on the mat", "a dog ran in the park today", "nothing here is shared at all"]
        references = [["the cat sat on a mat", "a cat sat on the mat"], ["a dog ran in the park"], ["nothing there"]]
        turned = [[r[0] for r in references], ["a cat sat on the mat", None, None]]
        scores = of(written, references, batch=1)
        assert values(scores)["bleu"] == pytest.approx(corpus_bleu(written, turned).score)
        assert values(scores)["chrf"] == pytest.approx(corpus_chrf(written, turned).score)
        assert scores.signatures()["bleu"].startswith("nrefs:var")

    def test_a_language_that_is_told_is_not_looked_for(self, pairs):
        references = pairs["zh"][:50]
        written = disturbed(references, list)
        told = of(written, [[r] for r in references], language="other")
        assert values(told)["bleu"] == pytest.approx(corpus_bleu(written, [references], tokenize="13a").score)

    def test_weights_are_counts_of_rows_and_the_interval_is_that_of_texts_drawn_again(self, pairs):
        references = pairs["en"][:60]
        written = disturbed(references, str.split)
        scores = of(written, [[r] for r in references])
        draw = np.random.default_rng(1)
        resampled = {"bleu": [], "chrf": []}
        for _ in range(150):
            rows = draw.integers(0, 60, 60)
            some, theirs = [written[i] for i in rows], [[references[i] for i in rows]]
            weights = np.bincount(rows, minlength=60).astype(float)
            ours = {k: m(weights) for k, m in scores.metrics().items()}
            assert ours["bleu"] == pytest.approx(corpus_bleu(some, theirs).score)
            resampled["bleu"].append(ours["bleu"])
            resampled["chrf"].append(corpus_chrf(some, theirs).score)
            assert ours["chrf"] == pytest.approx(resampled["chrf"][-1])
        for key, estimate in scores.estimates().items():
            low, high = np.quantile(resampled[key], [0.025, 0.975])
            assert estimate.low < estimate.value < estimate.high
            assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.25 * (high - low))

    def test_texts_are_not_kept(self):
        scores = of(["a b c " * 1000] * 50, [["a b d " * 1000]] * 50, families=tuple(FAMILIES), batch=10)
        numbers = [a for kept in scores._statistics.values() for a in kept]
        assert sum(a.nbytes for a in numbers) < 50 * 200 and all(a.dtype != object for a in numbers)


class TestLanguage:
    @pytest.mark.parametrize(
        ("texts", "language"),
        [
            (["我喜欢春天的花。", "GPU 很快"], "zh"),
            (["私は春の花が好きです。"], "ja"),
            (["カード"], "ja"),
            (["The sign for flower is 花 in both languages, as everyone who reads this sentence knows"], "other"),
            (["봄꽃을 좋아합니다"], "other"),
            (["123", ""], "other"),
            ([], "other"),
        ],
    )
    def test_by_script(self, texts, language):
        assert language_of(texts) == language

    def test_japanese_without_its_dictionary_is_counted_in_characters_and_says_so(self):
        scores = of(["私は花が好きです。"], [["私は春の花が好きです。"]])
        assert re.search(r"tok:(char|ja-mecab)", scores.signatures()["bleu"]) and values(scores)["bleu"] > 20


class TestRouge:
    ENGLISH = (
        "the cat sat on the mat\nit was warm there",
        "on the mat the cat was\nthere, it sat; warm!\nthe end",
        "A dog ran in the park",
        "",
        "warm warm warm cat",
        "it's 3.5 kilometres to the old-fashioned town\nand we walked\n\nthe whole way",
        "we walked 3.5 kilometres\nthe way to the town is old",
    )

    def test_english_is_that_of_rouge_score(self):
        scorer = RougeScorer(list(FAMILIES["rouge"]), use_stemmer=False)
        for a in self.ENGLISH:
            for b in self.ENGLISH:
                if a or b:
                    theirs = {k: s.fmeasure for k, s in scorer.score(b, a).items()}
                    assert named(a, b) == pytest.approx(theirs), (a, b)

    def test_random_lines_are_those_of_rouge_score(self):
        scorer = RougeScorer(list(FAMILIES["rouge"]), use_stemmer=False)
        draw = random.Random(0)
        for _ in range(300):
            a, b = (
                "\n".join(" ".join(draw.choices("abcde", k=draw.randrange(8))) for _ in range(draw.randrange(1, 4)))
                for _ in "ab"
            )
            if a.split() == b.split() and len(a.split()) < 2:
                continue  # ours says that the same text scores 1
            assert named(a, b) == pytest.approx({k: s.fmeasure for k, s in scorer.score(b, a).items()}), (a, b)

    def test_several_references_are_those_of_rouge_score(self):
        scorer = RougeScorer(list(FAMILIES["rouge"]), use_stemmer=False)
        written, references = self.ENGLISH[0], [self.ENGLISH[1], self.ENGLISH[2], self.ENGLISH[4]]
        theirs = {k: s.fmeasure for k, s in scorer.score_multi(references, written).items()}
        assert values(of([written], [references], ("rouge",))) == pytest.approx(theirs)

    @pytest.mark.parametrize(
        "text", ["我喜欢春天的花。", "花", "好！", "ok", "हिन्दी भाषा", "私は花", "！！", "", "GPU很快\n真"]
    )
    def test_the_same_text_scores_1(self, text):
        assert set(named(text, text).values()) == {1.0}
        assert set(named(text, "quite another").values()) == {0.0}

    def test_chinese_by_hand(self):
        # 我 爱 北 京 against 我 在 北 京: 3 of 4 characters, 1 of 3 pairs, 我北京 in order
        found = named("我爱北京。", "我在北京")
        assert found == pytest.approx({"rouge1": 0.75, "rouge2": 1 / 3, "rougeL": 0.75, "rougeLsum": 0.75})
        # words of other scripts are whole: gpu 很 快 against gpu 不 快
        assert named("GPU很快", "gpu 不快")["rouge1"] == pytest.approx(2 / 3)

    def test_other_texts_without_units_are_not_the_same(self):
        assert set(named("!!!", "???").values()) == {0.0}


# ---- the official scripts, written out again from their definitions


def squad_normal(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


PUNCTUATION = {chr(i) for i in range(0x30000) if unicodedata.category(chr(i))[0] == "P"} | set(string.punctuation)


def mlqa_normal(text):
    units, word = [], ""
    for c in (c for c in text.lower() if c not in PUNCTUATION):
        if "\u4e00" <= c <= "\u9fa5":
            units += [*word.split(), c]
            word = ""
        else:
            word += c
    return " ".join([*units, *word.split()])


def official(guess, golds, normal):
    """Exact match and F1 of SQuAD 2.0's script."""
    golds = [g for g in golds if normal(g)] or [""]

    def f1(gold):
        a, b = normal(gold).split(), normal(guess).split()
        if not a or not b:
            return float(a == b)
        same = sum((Counter(a) & Counter(b)).values())
        if not same:
            return 0.0
        precision, recall = same / len(b), same / len(a)
        return 2 * precision * recall / (precision + recall)

    return max(float(normal(g) == normal(guess)) for g in golds), max(map(f1, golds))


class TestSquad:
    ENGLISH = ("The Eiffel Tower", "eiffel tower!", "tower", "a the an", "", "in 1889, the year", "U.S.", "us", "—")
    CHINESE = ("北京大学", "北京，大学。", "大学", "在 1998 年", "1998年", "Gpu 芯片", "GPU芯片", "。", "", "the 花")

    @pytest.mark.parametrize("language", ["en", "zh"])
    def test_every_pair_is_judged_as_the_script_does(self, language):
        texts, normal = (self.ENGLISH, squad_normal) if language == "en" else (self.CHINESE, mlqa_normal)
        code = "other" if language == "en" else "zh"
        for guess in texts:
            for golds in [*([t] for t in texts), [*texts[:3]], [*texts[3:5]], []]:
                scores = of([guess], [golds], ("squad",), code)
                expected = dict(zip(("exact_match", "answer_f1"), official(guess, golds, normal), strict=True))
                assert values(scores) == pytest.approx(expected), (guess, golds)

    def test_real_questions(self):
        for language, normal in (("en", squad_normal), ("zh", mlqa_normal)):
            file = DATA / f"xquad.{language}.json"
            if not file.exists():
                pytest.skip(f"{file} is not there")
            articles = json.loads(file.read_text(encoding="utf-8"))["data"]
            questions = [q for a in articles for p in a["paragraphs"] for q in p["qas"]][:300]
            golds = [[x["text"] for x in q["answers"]] for q in questions]
            guesses = disturbed([g[0] for g in golds], str.split if language == "en" else list)
            theirs = np.mean([official(g, r, normal) for g, r in zip(guesses, golds, strict=True)], axis=0)
            found = of(guesses, golds, ("squad",), batch=64)
            assert list(values(found).values()) == pytest.approx(theirs.tolist()) and 0.1 < theirs[0] < 0.9
            assert ("MLQA" in found.signatures()["squad"]) == (language == "zh")

    def test_normalised_by_hand(self):
        assert normalized_answer("The  Quick, brown a fox.") == ["quick", "brown", "fox"]
        assert normalized_answer("在1998年，GPU 芯片", chinese=True) == ["在", "1998", "年", "gpu", "芯", "片"]


def test_every_figure_has_a_name_for_people():
    assert {key for keys in FAMILIES.values() for key in keys} <= set(METRICS)


class TestBadInput:
    def test_numbers_of_rows_that_differ(self):
        with pytest.raises(DataError, match="Got 2 and 1"):
            TextScores().add(["a", "b"], [["a"]])

    def test_a_row_without_a_reference(self):
        scores = of(["a"], [["a"]])
        with pytest.raises(DataError, match="row 2: must have a reference"):
            scores.add(["b", "c"], [["b"], []])
        assert scores.rows == 1

    def test_no_rows(self):
        with pytest.raises(DataError, match="need rows"):
            TextScores().estimates()

    def test_metrics_and_languages_that_there_are_not(self):
        with pytest.raises(UsageError, match="Did you mean 'bleu'"):
            TextScores(("blue",))
        with pytest.raises(UsageError, match="'zh', 'ja' or 'other'"):
            TextScores(language="chinese")

    def test_empty_texts_and_control_characters_and_half_letters(self):
        odd = ["", "\x00\x07", "\ud83d", "a" * 5000]
        found = values(of(odd, [[t] for t in odd], tuple(FAMILIES)))
        assert all(np.isfinite(v) for v in found.values()) and found["rouge1"] == 1 and found["exact_match"] == 1
        assert values(of(["", ""], [["a b"], ["c d"]]))["bleu"] == 0
