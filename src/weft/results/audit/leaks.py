"""What a model remembers of whom: who can be told to have been learnt from, and which secrets it says again.

Membership: an attacker who has a row guesses whether it was learnt from; by how sure the model is of its truth
(Yeom 2018), or by that beside models that learnt from the row and models that did not (LiRA; Carlini 2022). Canaries:
texts with a secret number that were planted before the training; how far the model prefers the true number to others is
their exposure (Carlini 2019), log2(numbers) - log2(rank): 1.44 on average where nothing is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from weft.results.metrics import auc, share, with_intervals

RATE = 0.01
"""Share of the others that are wrongly taken for members, at which members are counted."""
_LOSS = (
    "Who was learnt from, guessed by how well the model does on a row: AUC {auc:.3f} ({low:.3f} to {high:.3f}), where "
    "0.5 is chance; {tpr:.1%} ({least:.1%} to {most:.1%}) of the {members:,} rows are recognised where 1 % of "
    "{others:,} others are taken for one of them."
)
_RATIO = (
    "By the likelihood ratio beside {shadows} models trained on other halves of the rows: AUC {auc:.3f} ({low:.3f} to "
    "{high:.3f}); {tpr:.1%} ({least:.1%} to {most:.1%}) are recognised where 1 % of the others are."
)
_BOUND = "Its epsilon of {epsilon:.3g} allows at most {bound:.1%} there, whatever the attack."
_NOTE = (
    "The others are the rows it was judged on: where they differ in more than that (a split by time), the figures show "
    "this too. Attacks say what leaks at least; only training.privacy says what leaks at most."
)
_CANARY = (
    "Secrets that were planted {times:,} times: exposure {value:.2f} on average ({count:,} of them), where "
    "{chance:.2f} is chance and {limit:.2f} the most that is told; {found:,} are among the first in a hundred."
)
CHANCE = 1 / np.log(2)


@dataclass(frozen=True)
class Beside:
    """What models of the same kind say of the same rows [K, N], and which of these each learnt from [K, N]."""

    scores: np.ndarray
    learnt: np.ndarray


def membership_section(
    scores: np.ndarray, member: np.ndarray, beside: Beside | None, account: dict[str, Any] | None
) -> dict[str, Any]:
    """Figures of the attacks and what is said of them.

    Args:
        scores: how sure the model is of the truth of each row [N].
        member: which rows it learnt from [N].
        account: of a private training (``report.json``: privacy).
    """
    attacks = {"loss": attack(scores, member)}
    if beside is not None:
        attacks["ratio"] = attack(likelihood_ratio(scores, beside), member)
    counts = {"members": int(member.sum()), "others": int((~member).sum())}
    said: list[Any] = [(_LOSS, {**_flat(attacks["loss"]), **counts})]
    if beside is not None:
        said.append((_RATIO, {**_flat(attacks["ratio"]), "shadows": len(beside.scores)}))
    bound = None
    if account is not None:
        bound = min(1.0, float(np.exp(account["spent"])) * RATE + account["delta"])
        said.append((_BOUND, {"epsilon": account["spent"], "bound": bound}))
    return {**counts, "attacks": attacks, "bound": bound, "said": [*said, (_NOTE, {})]}


def attack(score: np.ndarray, member: np.ndarray) -> dict[str, Any]:
    """How well a score tells members: AUC, and the share recognised at a false rate of 1 %, with intervals."""
    found = with_intervals({"auc": auc(score, member)}, len(score))["auc"]
    others = np.sort(score[~member])
    threshold = others[-max(1, int(len(others) * RATE))]  # that many others are at or above it
    caught = share(float((score[member] > threshold).sum()), int(member.sum()))
    return {"auc": found.to_dict(), "tpr": caught.to_dict()}


def likelihood_ratio(score: np.ndarray, beside: Beside) -> np.ndarray:
    """log N(score; models with the row) - log N(score; models without it) [N], one spread for all rows (LiRA, 6.4)."""
    found = []
    for chosen in (beside.learnt, ~beside.learnt):
        mean = (beside.scores * chosen).sum(axis=0) / np.maximum(1, chosen.sum(axis=0))
        # the spread about means of few is too small by a share of the degrees of freedom
        free = max(1.0, float(chosen.sum() - (chosen.sum(axis=0) > 0).sum()))
        spread = np.sqrt((((beside.scores - mean) * chosen) ** 2).sum() / free)
        spread = max(float(spread), 1e-6)
        found.append(-(((score - mean) / spread) ** 2) / 2 - np.log(spread * np.sqrt(2 * np.pi)))
    return found[0] - found[1]


def canaries_section(times: Sequence[int], ranks: Sequence[int], candidates: int) -> dict[str, Any]:
    """Exposure of planted secrets: ``ranks`` among ``candidates`` numbers, 1 where none is more probable."""
    exposure = np.log2(candidates) - np.log2(np.asarray(ranks, np.float64))
    groups, said = [], []
    for count in sorted(set(times)):
        mine = np.asarray(times) == count
        group = {
            "times": int(count), "count": int(mine.sum()), "value": float(exposure[mine].mean()),
            "found": int((np.asarray(ranks)[mine] <= candidates / 100).sum()),
        }  # fmt: skip
        groups.append(group)
        said.append((_CANARY, {**group, "chance": float(CHANCE), "limit": float(np.log2(candidates))}))
    return {"exposure": exposure.tolist(), "times": list(times), "candidates": candidates, "groups": groups,
            "said": said}  # fmt: skip


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    area = found["auc"]
    low, high = (area["value"] if area[end] is None else area[end] for end in ("low", "high"))  # all are told apart
    return {"auc": area["value"], "low": low, "high": high, "tpr": found["tpr"]["value"], "least": found["tpr"]["low"],
            "most": found["tpr"]["high"]}  # fmt: skip
