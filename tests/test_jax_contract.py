"""The facts of JAX that staging rests on; a failure names what a new JAX changed."""

import os

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jax.interpreters import batching

from ppl.effects import CHOICES, draw_p, effects_of
from ppl.language import sample
from ppl.randomness import draw


def test_batching_rules_run_without_batched_operands():
    """`vmap` calls a rule of `fancy_primitive_batchers` though no operand is batched."""
    f = lambda: jax.vmap(lambda _: draw(dist.Normal(0.0, 1.0)))(jnp.zeros(3))  # noqa: E731
    (eqn,) = [e for e in jax.make_jaxpr(f)().jaxpr.eqns if e.primitive is draw_p]
    assert eqn.params["levels"] == ((3, (None, None)),), "unbatched draws are not replicated"


def test_unused_choices_stay():
    """An equation with an effect is kept though nobody reads its result."""

    def f(x):
        sample("a", dist.Normal(x, 1.0))
        lax.scan(lambda c, _: (sample("b", dist.Normal(c, 1.0)), None), x, None, length=2)
        lax.cond(x > 0, lambda: (sample("c", dist.Normal(x, 1.0)), 0)[1], lambda: 1)
        jax.checkpoint(lambda y: (sample("d", dist.Normal(y, 1.0)), y)[1])(x)
        jax.jit(lambda y: (sample("e", dist.Normal(y, 1.0)), y)[1])(x)
        return x

    assert str(jax.make_jaxpr(f)(1.0)).count("sample[") == 5, "JAX dropped an unused choice"


def test_control_flow_rules_can_be_replaced():
    """`scan`, `cond` and `checkpoint` look their batching rule up when they are batched."""

    def f(x):
        step = lambda c, _: (sample("b", dist.Normal(c, 1.0)), None)  # noqa: E731
        return lax.scan(step, x, None, length=2)[0]

    jaxpr = jax.make_jaxpr(jax.vmap(f))(jnp.zeros(3)).jaxpr
    assert "map_choices" in {e.primitive.name for e in jaxpr.eqns}, "the loop was turned inside out"
    assert effects_of(jaxpr) & CHOICES


def test_eval_jaxpr_keeps_custom_derivatives():
    """`jax.core.eval_jaxpr` re-applies custom derivative rules."""

    @jax.custom_jvp
    def twice(x):
        return x

    twice.defjvp(lambda primals, tangents: (primals[0], 2 * tangents[0]))
    closed = jax.make_jaxpr(twice)(1.0)
    run = lambda x: jax.core.eval_jaxpr(closed.jaxpr, closed.consts, x)[0]  # noqa: E731
    assert float(jax.grad(run)(1.0)) == 2.0, "eval_jaxpr dropped a custom derivative"


def test_registries_exist():
    for registry in ("fancy_primitive_batchers", "primitive_batchers"):
        assert hasattr(batching, registry), f"jax.interpreters.batching.{registry} is gone"


def test_wrong_fusion_of_one_jaxlib_is_off(monkeypatch):
    from ppl import _compiler

    option = "--xla_cpu_experimental_ynn_fusion_type"

    def flags(version, before):
        monkeypatch.setattr(_compiler, "version", lambda name: version)
        monkeypatch.setenv("XLA_FLAGS", before)
        _compiler.guard()
        return os.environ["XLA_FLAGS"]

    assert flags("0.12.0.1", "") == flags("0.12.0", "") == f"{option}="
    assert flags("0.12.0", "--a") == f"--a {option}="
    assert flags("0.12.0", f"{option}=x") == f"{option}=x"  # the user's word stands
    # an option that a release does not know would end the process
    assert flags("0.10.2", "") == flags("0.12.01", "") == ""
