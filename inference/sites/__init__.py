"""Gaussian sites: a process whose data are not Gaussian, given them, as another Gaussian process.

Each input of the process gets a factor that is Gaussian in its value, a *site*; with sites the
process is folded in O(n). Laplace's method, power expectation propagation and conjugate
variational inference differ in how they choose them. It may use `ppl`, the algebra, `validation`,
and of the rooms `gaussian`.

>>> import jax.numpy as jnp, numpyro.distributions as dist
>>> from inference import gaussian, sites
>>> from ppl import Target, gen, sample
>>> @gen
... def coins():
...     f = sample("f", gaussian.gp(gaussian.Matern32(2.0), jnp.arange(3.0)))
...     sample("y", dist.Bernoulli(logits=f))
>>> found = sites.power_ep(Target(coins, (), {"y": jnp.array([1, 1, 0])}), "f")
>>> bool(found.status.converged), found.law.sites()[("f",)].shape
(True, (3,))
"""

from .approximation import Approximation
from .conjugate_vi import conjugate_vi
from .iterate import Status
from .laplace import laplace
from .power_ep import power_ep

__all__ = ["Approximation", "Status", "conjugate_vi", "laplace", "power_ep"]
