"""How large a model the data are enough for.

Hoffmann et al. 2022 ("Training compute-optimal large language models") found it in three ways. By the envelope of
training curves and by the valleys of equal compute, the best size grows as N = k C^a of the FLOPs C = 6 N D:

    way 1: a = 0.50, 67B at Gopher's 5.76e23 FLOPs;  way 2: a = 0.49, 63B                  (their sections 3.1, 3.2)

The third fits the loss L(N, D) = E + A / N^alpha + B / D^beta. Besiroglu et al. 2024 ("Chinchilla scaling: a
replication attempt") fitted the same points anew: the published constants disagree with the two other ways, theirs do
not.
"""

from __future__ import annotations

from dataclasses import dataclass

GOPHER = 5.76e23


@dataclass(frozen=True)
class Envelope:
    """Ways 1 and 2: the best size is ``at_gopher`` (C / 5.76e23)^``power``."""

    name: str
    at_gopher: float
    power: float

    def size_for(self, tokens: float) -> float:
        """The best size for so many tokens: N = k C^a and C = 6 N D give N = (k (6 D)^a)^(1 / (1 - a))."""
        k = self.at_gopher / GOPHER**self.power
        return (k * (6 * tokens) ** self.power) ** (1 / (1 - self.power))

    def tokens_for(self, size: float) -> float:
        k = self.at_gopher / GOPHER**self.power
        return (size / k) ** (1 / self.power) / (6 * size)


@dataclass(frozen=True)
class Fit:
    """Way 3: L(N, D) = E + A / N^alpha + B / D^beta, in nats a token (of their data and tokens)."""

    name: str
    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, size: float, tokens: float) -> float:
        return self.e + self.a / size**self.alpha + self.b / tokens**self.beta

    def size_for(self, tokens: float) -> float:
        """At the best of a budget 6 N D both terms gain alike: alpha A / N^alpha = beta B / D^beta."""
        return float((self.alpha * self.a * tokens**self.beta / (self.beta * self.b)) ** (1 / self.alpha))

    def tokens_for(self, size: float) -> float:
        return float((self.beta * self.b * size**self.alpha / (self.alpha * self.a)) ** (1 / self.beta))


CORRECTED = Fit("Besiroglu 2024", 1.8172, 482.01, 2085.43, 0.3478, 0.3658)
WAYS: tuple[Envelope | Fit, ...] = (
    Envelope("Hoffmann 2022, way 1", 67e9, 0.50),
    Envelope("Hoffmann 2022, way 2", 63e9, 0.49),
    Fit("Hoffmann 2022, way 3", 1.69, 406.4, 410.7, 0.34, 0.28),
    CORRECTED,
)
