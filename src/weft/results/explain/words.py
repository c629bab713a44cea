"""An explanation in sentences that a non-expert understands, in English and Chinese."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np

from weft.results.explain.counterfactual import Change
from weft.results.explain.nearest import Nearest
from weft.results.explain.why import Check, Explanation

TOLD = 3  # parts named on one side
HARDLY = 0.05  # of the largest share of a column: below it the column hardly mattered
STRONG = 0.25  # of the largest share: from here on a part that spoke against the answer is named
_EDGES = string.punctuation + "“”‘’«»…—–，。！？；：、（）《》【】"

_ENGLISH = {
    "because": "It said {answer}{sure}, mostly because of {parts}",
    "number": "It said {answer}, where a typical row gets {base}",
    "up": "{parts} raised it",
    "down": "{parts} lowered it",
    "nothing": "It said {answer}{sure}; no single part of the row made the difference",
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


def sentences(why: Explanation, language: str = "en") -> list[str]:
    """What the explanation says, a sentence each."""
    say = LANGUAGES[language]
    told = [_attention(why, say)] if why.method == "attention" else _shares(why, say)
    if why.change is not None and why.change_to is not None:
        text = say["would"].format(changes=_changes(why.change.changes, say), answer=_name(why.change_to, say))
        told.append(text[0].upper() + text[1:])
    if why.nearest is not None and why.nearest.neighbours:
        told.append(_nearest(why.nearest, why.answer, say))
    failed = [check for check in why.checks if not check.passed]
    if failed:
        told.append(say["unreliable"].format(checks=_list([check_in_words(c, language) for c in failed], say)))
    return told


def check_in_words(check: Check, language: str = "en") -> str:
    """What it means that the check failed."""
    return LANGUAGES[language][check.name]


def _shares(why: Explanation, say: dict[str, str]) -> list[str]:
    shares = why.shares if len(why.shares) else np.zeros(1)
    largest = float(np.abs(shares).max())
    sure = _sure(why, say)
    answer = _name(str(why.answer), say) if why.of is not None else _number(float(why.answer))
    up, down = _most(why, 1, largest, say), _most(why, -1, largest, say)
    if why.of is None:
        first = say["number"].format(answer=answer, base=_number(why.base))
        rest = [say[key].format(parts=_list(parts, say)) for key, parts in (("up", up), ("down", down)) if parts]
        told = [say["semi"].join([first, *rest])]
    elif not up:
        told = [say["nothing"].format(answer=answer, sure=sure)]
    else:
        told = [say["because"].format(answer=answer, sure=sure, parts=_list(up, say))]
        if down:
            told.append(say["against"].format(parts=_list(down, say)))
    columns = why.by_column()
    most = max((abs(share) for share in columns.values()), default=0.0)
    hardly = [name for name, share in columns.items() if abs(share) < HARDLY * most][:2]
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
    sure = _sure(why, say)
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


def _sure(why: Explanation, say: dict[str, str]) -> str:
    p = why.probability
    if p is None:
        return ""
    return say["sure"].format(p=f"{p:.0%}") if p < 0.995 else say["sure"].format(p=">99%")


def _number(value: float) -> str:
    return f"{value:.4g}"


def _list(parts: Sequence[str], say: dict[str, str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return say["comma"].join(parts[:-1]) + say["and"] + parts[-1]
