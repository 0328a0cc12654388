"""What is said of a fit: its bound, and whether the guide's weights can be used."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .khat import reliable


@dataclass(frozen=True)
class FitReport:
    """How good a guide is; true if its importance weights have no heavy tail.

    Attributes:
      elbo: the mean of the log weights log p(x, y) - log q(x), at most the log evidence.
      error: its standard error.
      log_evidence: the log of the mean weight, at most that on average, too.
      khat: of the weights' tail; -inf where all weights are equal; None where it is not known.
      n: how many draws.
      finite: whether the guide has finitely many outcomes, so that weights are bounded.

    >>> from inference import FitReport
    >>> print(FitReport(elbo=-3.2, error=0.01, log_evidence=-3.1, khat=0.9, n=1000))
    ELBO -3.2 +- 0.01, log evidence -3.1 by importance, of 1000 draws
    k-hat 0.90: the guide has a lighter tail than the posterior. More steps, if the bound still \
grows (plot_fit); a wider guide: full_rank, a flow, iwelbo; or correct it: normalize(target, \
by_importance(n, guide)), or MCMC from its draws
    """

    elbo: float
    error: float
    log_evidence: float
    khat: float | None
    n: int
    finite: bool = False

    def __bool__(self) -> bool:
        return self.finite or (self.khat is not None and reliable(self.khat, self.n))

    def __str__(self) -> str:
        first = (
            f"ELBO {self.elbo:.5g} +- {self.error:.1g}, log evidence {self.log_evidence:.5g} by "
            f"importance, of {self.n} draws"
        )
        if self.finite and self.khat != -math.inf:
            second = "weights have finitely many values: they can be used"
        elif self.khat is None:
            second = (
                "k-hat is not known: weights in the tail are tied or no numbers. Compare "
                "iwelbo(k) for more and more particles instead"
            )
        elif self.khat == -math.inf:
            second = "all weights are equal: the guide is the posterior"
        elif self:
            second = f"k-hat {self.khat:.2f}: the guide's weights can be used"
        else:
            second = (
                f"k-hat {self.khat:.2f}: the guide has a lighter tail than the posterior. "
                "More steps, if the bound still grows (plot_fit); a wider guide: full_rank, a "
                "flow, iwelbo; or correct it: normalize(target, by_importance(n, guide)), or MCMC "
                "from its draws"
            )
        return f"{first}\n{second}"
