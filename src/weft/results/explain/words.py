"""An explanation in sentences that a non-expert understands, in English and Chinese."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from weft.results.explain.counterfactual import Change
from weft.results.explain.nearest import Nearest
from weft.results.explain.reading import NO_ANSWER
from weft.results.explain.why import Check, Explanation
from weft.results.explain.writing import Writing

TOLD = 3  # parts named on one side
HARDLY = 0.05  # of the largest share of a column: below it the column hardly mattered
LEAST, MAIN = 0.1, 0.5  # a word of the source is named from this share of the largest of all on, and of the word's own
MOST_TOLD = 12  # words written that are told of
STRONG = 0.25  # of the largest share: from here on a part that spoke against the answer is named
_EDGES = string.punctuation + "“”‘’«»…—–，。！？；：、（）《》【】"

_ENGLISH = {
    "because": "It said {answer}{sure}, mostly because of {parts}",
    "number": "It said {answer}, where a typical row gets {base}",
    "up": "{parts} raised it",
    "down": "{parts} lowered it",
    "nothing": "It said {answer}{sure}; no single part of the row made the difference",
    "because ranking": "It recommended {answer}{sure}, mostly because of {parts}",
    "nothing ranking": "It recommended {answer}{sure}; nothing of the history made the difference",
    "because span": "It answered {answer}{sure}, mostly because of {parts}",
    "nothing span": "It answered {answer}{sure}; no single word made the difference",
    "because no answer": "It found no answer{sure}, mostly because of {parts}",
    "nothing no answer": "It found no answer{sure}; no single word made the difference",
    "number embedding": "The two texts are near each other by {answer} (1: the same)",
    "up embedding": "{parts} brought them nearer",
    "down embedding": "{parts} kept them apart",
    "wrote": "It wrote {answer}{sure}, mostly because of {parts}",
    "wrote more": "{count} more words have such a reason, which the table tells",
    "follows": "{parts} followed from what was written before: no word it was given made the difference",
    "against": "{parts} spoke against it",
    "hardly": "{parts} hardly mattered",
    "looked": "It said {answer}{sure}. It looked most at {parts}; where it looked is not why it decided",
    "without": "without {word}",
    "instead": "with {column} {to} instead of {was}",
    "would": "{changes} it would have said {answer}.",
    "sure": " ({p} sure)",
    "and": " and ", "comma": ", ", "stop": ".", "semi": "; ",
    "agree": "Of the {k} training rows most like this one {n} have the answer {answer}.",
    "disagree": "Of the {k} training rows most like this one only {n} have the answer {answer}: what it learnt from "
                "speaks against it.",
    "near": "The {k} training rows most like this one have {low} to {high}.",
    "beyond": "The {k} training rows most like this one have {low} to {high}: what it learnt from speaks against "
              "{answer}.",
    "unreliable": "Take this with caution: {checks}.",
    "adds up": "the shares do not add up to the answer",
    "sampling error": "the shares are known only roughly (more evaluations help)",
    "same again": "a second try would give another picture (more evaluations help)",
    "local R2": "a straight line does not tell what the model does here",
    "completeness gap": "the gradients do not account for the whole answer",
}  # fmt: skip
_CHINESE = {
    "because": "模型判断为{answer}{sure}，主要依据是{parts}",
    "number": "模型给出 {answer}，而典型的一行是 {base}",
    "up": "{parts}使它升高",
    "down": "{parts}使它降低",
    "nothing": "模型判断为{answer}{sure}；这一行里没有哪一部分起决定作用",
    "because ranking": "模型推荐{answer}{sure}，主要依据是{parts}",
    "nothing ranking": "模型推荐{answer}{sure}；历史中没有哪一项起决定作用",
    "because span": "模型的回答是{answer}{sure}，主要依据是{parts}",
    "nothing span": "模型的回答是{answer}{sure}；没有哪一个词起决定作用",
    "because no answer": "模型认为没有答案{sure}，主要依据是{parts}",
    "nothing no answer": "模型认为没有答案{sure}；没有哪一个词起决定作用",
    "number embedding": "两段文字的接近程度是 {answer}（1 表示相同）",
    "up embedding": "{parts}使它们更接近",
    "down embedding": "{parts}使它们更远",
    "wrote": "模型写出{answer}{sure}，主要依据是{parts}",
    "wrote more": "另有 {count} 个词有这样的依据，见下表",
    "follows": "{parts}由前面写出的内容决定：原文中没有哪个词起决定作用",
    "against": "{parts}指向相反的结论",
    "hardly": "{parts}几乎没有影响",
    "looked": "模型判断为{answer}{sure}。它看得最多的是{parts}；看了哪里并不等于为什么这样判断",
    "without": "去掉{word}",
    "instead": "把{column}从{was}改为{to}",
    "would": "如果{changes}，模型会判断为{answer}。",
    "sure": "（把握 {p}）",
    "and": "和", "comma": "、", "stop": "。", "semi": "；",
    "agree": "在与这一行最相似的 {k} 个训练样本中，有 {n} 个的答案是{answer}。",
    "disagree": "在与这一行最相似的 {k} 个训练样本中，只有 {n} 个的答案是{answer}：它学过的数据并不支持这个判断。",
    "near": "与这一行最相似的 {k} 个训练样本，取值在 {low} 到 {high} 之间。",
    "beyond": "与这一行最相似的 {k} 个训练样本，取值在 {low} 到 {high} 之间：它学过的数据并不支持 {answer}。",
    "unreliable": "请谨慎看待：{checks}。",
    "adds up": "各部分的份额加起来不等于结果",
    "sampling error": "份额只是粗略的估计（增加评估次数会更准）",
    "same again": "再算一次可能得到不同的结果（增加评估次数会更准）",
    "local R2": "在这一行附近，直线不足以描述模型",
    "completeness gap": "梯度没有解释全部结果",
}  # fmt: skip
LANGUAGES = {"en": _ENGLISH, "zh": _CHINESE}


def sentences(why: Explanation | Writing, language: str = "en") -> list[str]:
    """What the explanation says, a sentence each."""
    say = LANGUAGES[language]
    if isinstance(why, Writing):
        return [*_written(why, say), *_caution(why.checks, say)]
    told = [_attention(why, say)] if why.method == "attention" else _shares(why, say)
    if why.change is not None and why.change_to is not None:
        text = say["would"].format(changes=_changes(why.change.changes, say), answer=_name(why.change_to, say))
        told.append(text[0].upper() + text[1:])
    if why.nearest is not None and why.nearest.neighbours:
        told.append(_nearest(why.nearest, why.answer, say))
    return told + _caution(why.checks, say)


def _caution(checks: Sequence[Check], say: dict[str, str]) -> list[str]:
    """What it means that checks failed."""
    failed = [say[check.name] for check in checks if not check.passed]
    return [say["unreliable"].format(checks=_list(failed, say))] if failed else []


def _written(why: Writing, say: dict[str, str]) -> list[str]:
    """A sentence for the words of which a word of the source made most; neighbours with one reason share it."""
    clear = LEAST * np.abs(why.shares).max(initial=0.0)
    told: list[tuple[list[int], tuple[str, ...]]] = []
    for word in range(len(why.words)):
        shares, errors = why.shares[:, word], why.errors[:, word]
        strong = (shares >= np.maximum(clear, MAIN * shares.max(initial=0.0))) & (shares > 2 * errors)
        order = [i for i in np.argsort(-shares, kind="stable").tolist() if strong[i]][:TOLD]
        parts = tuple(dict.fromkeys(_word(why.players[i].shown, say) for i in order))
        if told and told[-1][1] == parts:
            told[-1][0].append(word)
        else:
            told.append(([word], parts))
    said = []
    for words, parts in told:
        if parts:
            shown = _name(why.text[why.words[words[0]].start : why.words[words[-1]].end], say)
            sure = _sure(float(np.exp(why.score[words].sum())), say)
            said.append(say["wrote"].format(answer=shown, sure=sure, parts=_list(parts, say)) + say["stop"])
    if len(said) > MOST_TOLD:
        more = say["wrote more"].format(count=len(said) - MOST_TOLD) + say["stop"]
        said = [*said[:MOST_TOLD], more]
    rest = [_word(why.words[w].shown, say) for words, parts in told if not parts for w in words]
    names = list(dict.fromkeys(rest))
    if 0 < len(names) <= MOST_TOLD:
        said.append(say["follows"].format(parts=_list(names, say)) + say["stop"])
    return said


def _shares(why: Explanation, say: dict[str, str]) -> list[str]:
    shares = why.shares if len(why.shares) else np.zeros(1)
    largest = float(np.abs(shares).max())
    sure = _sure(why.probability, say)
    answer = _name(str(why.answer), say) if why.of is not None else _number(float(why.answer))
    task = "no answer" if why.of == NO_ANSWER else why.task

    def phrase(key: str) -> str:
        return say.get(f"{key} {task}", say[key])

    up, down = _most(why, 1, largest, say), _most(why, -1, largest, say)
    if why.of is None:
        first = phrase("number").format(answer=answer, base=_number(why.base))
        rest = [phrase(key).format(parts=_list(parts, say)) for key, parts in (("up", up), ("down", down)) if parts]
        told = [say["semi"].join([first, *rest])]
    elif not up:
        told = [phrase("nothing").format(answer=answer, sure=sure)]
    else:
        told = [phrase("because").format(answer=answer, sure=sure, parts=_list(up, say))]
        if down:
            told.append(say["against"].format(parts=_list(down, say)))
    columns = why.by_column()
    most = max((abs(share) for share in columns.values()), default=0.0)
    # the words of a text, or the events of a history, may balance one another and all matter
    size = Counter(player.column for player in why.players)
    small = [name for name, share in columns.items() if abs(share) < HARDLY * most]
    hardly = [name for name in small if why.task == "row" or size[name] == 1][:2]
    if hardly and len(columns) > 1:
        told.append(say["hardly"].format(parts=_list(hardly, say)))
    return [say["semi"].join(told) + say["stop"]]


def _nearest(found: Nearest, answer: str | float, say: dict[str, str]) -> str:
    k, against = len(found.neighbours), found.disagrees(answer)
    if isinstance(answer, str):
        n = found.agreeing(answer)
        return say["disagree" if against else "agree"].format(k=k, n=n, answer=_name(answer, say))
    truths = [float(n.truth) for n in found.neighbours if not isinstance(n.truth, list)]
    ends = {"low": _number(min(truths)), "high": _number(max(truths))}
    return say["beyond" if against else "near"].format(k=k, answer=_number(answer), **ends)


def _attention(why: Explanation, say: dict[str, str]) -> str:
    sure = _sure(why.probability, say)
    order = np.argsort(-why.shares, kind="stable")[:TOLD]
    parts = _list([_part(why, i, say) for i in order.tolist()], say)
    answer = _name(str(why.answer), say) if why.of is not None else _number(float(why.answer))
    return say["looked"].format(answer=answer, sure=sure, parts=parts) + say["stop"]


def _most(why: Explanation, sign: int, largest: float, say: dict[str, str]) -> list[str]:
    """The parts on one side that made most of it, at most ``TOLD``."""
    order = np.argsort(-sign * why.shares, kind="stable")
    strong = [i for i in order.tolist() if sign * why.shares[i] >= STRONG * largest > 0]
    return list(dict.fromkeys(_part(why, i, say) for i in strong))[:TOLD]


def _part(why: Explanation, place: int, say: dict[str, str]) -> str:
    player = why.players[place]
    if player.start is not None:
        return _word(player.shown, say)
    if why.task == "ranking" and player.column == why.target:
        return _name(player.shown, say)
    return f"{player.column} {player.shown}"


def _changes(changes: Sequence[Change], say: dict[str, str]) -> str:
    words = [_word(c.was, say) for c in changes if c.to is None]
    told = [say["without"].format(word=_list(words, say))] if words else []
    told += [say["instead"].format(column=c.column, to=c.to, was=c.was) for c in changes if c.to is not None]
    return _list(told, say)


def bare(word: str) -> str:
    """A word of a text, without the marks around it."""
    return word.strip(_EDGES) or word


def _word(word: str, say: dict[str, str]) -> str:
    return _name(bare(word), say)


def _name(name: str, say: dict[str, str]) -> str:
    return f"“{name}”" if say is _CHINESE else f"'{name}'"


def _sure(p: float | None, say: dict[str, str]) -> str:
    if p is None:
        return ""
    return say["sure"].format(p=f"{p:.0%}") if p < 0.995 else say["sure"].format(p=">99%")


def _number(value: float) -> str:
    return f"{value:.4g}"


def _list(parts: Sequence[str], say: dict[str, str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return say["comma"].join(parts[:-1]) + say["and"] + parts[-1]
