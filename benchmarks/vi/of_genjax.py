"""GenJAX's programs of this benchmark, in an interpreter that has it.

    PYTHON benchmarks/vi/of_genjax.py autoencoder BATCH
    PYTHON benchmarks/vi/of_genjax.py chain MADE CHOICES ROWS

Images are a batch inside one choice, and one objective, which is GenJAX's quickest way: a gradient
for each image would not be one matrix product.
"""

import sys

import jax
import jax.numpy as jnp
import optax
from genjax import gen, modular_vmap, seed
from genjax.adev import (
    expectation,
    flip_mvd,
    invoke_closed_over,
    multivariate_normal_diag_reparam,
)
from genjax.core import tfp_distribution
from problem import (
    LATENT,
    SIZES,
    STATE,
    autoencoder,
    chain,
    decode,
    encode,
    halves,
    images,
    logits_of,
    recur,
)
from serve import compiled, serve, variance
from tensorflow_probability.substrates import jax as tfp

tfd = tfp.distributions
pixels = tfp_distribution(lambda logits: tfd.Independent(tfd.Bernoulli(logits=logits), 2))
normals = tfp_distribution(lambda mean, sd: tfd.Independent(tfd.Normal(mean, sd), 2))
OPTIMISER = optax.adam(1e-3)


@gen
def model(p, x):
    z = normals(jnp.zeros((len(x), LATENT)), 1.0) @ "z"
    pixels(decode(p["decoder"], z)) @ "x"


@gen
def guide(p, x):
    mean, sd = encode(p["encoder"], x)
    multivariate_normal_diag_reparam(mean, sd) @ "z"


def step(p, state, x):
    x = x.astype(jnp.float32)

    @expectation
    def loss(p):
        trace = guide.simulate(p, x)
        log_density, _ = model.assess({"z": trace.get_choices()["z"], "x": x}, p, x)
        return -(log_density + trace.get_score()) / len(x)

    # its own `grad_estimate` gives no value
    value, gradient = jax.value_and_grad(lambda p: invoke_closed_over(loss, (p,)))(p)
    changes, state = OPTIMISER.update(gradient, state, p)
    return optax.apply_updates(p, changes), state, value


def log_odds(logits, z):
    """log Bernoulli(z; logits) of binary z."""
    return -jax.nn.softplus(jnp.where(z == 1, -logits, logits))


def bound_of_chain(choices, p, x):
    """The bound of one image, by the primitives themselves, without traces."""
    x = x.astype(jnp.float32)
    seen, due = halves(p, x)

    @expectation
    def loss(p):
        features = x @ p["read"]
        h, z, code, score = jnp.zeros(STATE), jnp.zeros(()), [], 0.0
        for _ in range(choices):
            h = recur(p, features, h, z)
            logit = h @ p["logit"]
            z = flip_mvd(jax.nn.sigmoid(logit)).astype(jnp.float32)
            score += log_odds(logit, z)
            code.append(z)
        likelihood = jnp.sum(log_odds(logits_of(p, jnp.stack(code), seen), due))
        return score - likelihood - choices * jnp.log(0.5)

    return invoke_closed_over(loss, (p,))


def slope_of_chain(choices):
    """Value and gradient for a batch: those of single images, summed.

    An `expectation` inside `modular_vmap` inside `jax.grad` is not traced by GenJAX 1.0.
    """

    def slope(p, xs):
        each = modular_vmap(
            lambda x: jax.value_and_grad(lambda p: bound_of_chain(choices, p, x))(p)
        )(xs)
        return jax.tree.map(lambda leaf: jnp.sum(leaf, 0), each)

    return slope


if __name__ == "__main__":
    what = sys.argv[1]
    if what == "autoencoder":
        n, start = int(sys.argv[2]), autoencoder()
        args = (jax.random.key(0), start, OPTIMISER.init(start), images(n))
        run, facts = compiled(seed(step), *args)
    else:
        made, n, rows = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
        args = (jax.random.key(0), chain(n, made), images(rows, SIZES[made]))
        slope = seed(slope_of_chain(n))
        run, facts = compiled(slope, *args)
        keys = jax.random.split(jax.random.key(1), 500)
        facts["variance"] = variance(jax.jit(slope), keys, *args[1:])
    serve(run, **facts)
