"""NumPyro's gradient through enumerated choices, in an interpreter that has it and funsor.

PYTHON benchmarks/vi/of_numpyro.py chain MADE CHOICES ROWS
"""

import sys

import funsor
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.funsor import config_enumerate
from numpyro.infer import TraceEnum_ELBO
from problem import SIZES, STATE, chain, halves, images, logits_of, recur
from serve import compiled, serve

funsor.set_backend("jax")


def slope_of_chain(choices, start):
    def parameters():
        return {name: numpyro.param(name, value) for name, value in start.items()}

    def model(x):
        p = parameters()
        with numpyro.plate("images", len(x)):
            code = [numpyro.sample(f"z{t}", dist.Bernoulli(0.5)) for t in range(choices)]
            code = jnp.stack(jnp.broadcast_arrays(*code), -1).astype(jnp.float32)
            seen, due = halves(p, x)
            pixels = dist.Bernoulli(logits=logits_of(p, code, seen)).to_event(1)
            numpyro.sample("x", pixels, obs=due)

    @config_enumerate
    def guide(x):
        p = parameters()
        features = x @ p["read"]
        with numpyro.plate("images", len(x)):
            h, z = jnp.zeros(STATE), jnp.zeros(())
            for t in range(choices):
                h = recur(p, features, h, z.astype(jnp.float32))
                z = numpyro.sample(f"z{t}", dist.Bernoulli(logits=h @ p["logit"]))

    bound = TraceEnum_ELBO(max_plate_nesting=1)

    def loss(p, key, x):
        return bound.loss(key, p, model, guide, x.astype(jnp.float32))

    return jax.value_and_grad(loss)


if __name__ == "__main__":
    made, choices, rows = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    start = chain(choices, made)
    args = (start, jax.random.key(0), images(rows, SIZES[made]))
    run, facts = compiled(slope_of_chain(choices, start), *args)
    serve(run, **facts)
