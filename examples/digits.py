"""Handwritten digits by a variational autoencoder: bounds for images held out, reconstructions.

Run with `python -m examples.digits`; `--figure PATH` draws the reconstructions. A pixel of these
8 x 8 images counts the dark ones among 16 of a finer scan, so the model is that of counts: a code
of 8 independent normals, from which a network makes the chances of 64 binomials. The guide is
another network, which reads a code off an image. Both are learned at once, by minibatches of 100
of 1,498 images; every sixth image is held out, of the same writers.

The bound of the evidence by K codes an image grows with K. Exits 0 only if, for images held out,
K = 1, 10 and 100 each gain more than 4 standard errors on the one before, and the first is above
the log probability of a model whose pixels are independent, each with the frequencies of its 17
counts in the images learned from.

The data: Alpaydin and Kaynak, Optical recognition of handwritten digits (UCI Machine Learning
Repository 1998). The model: Kingma and Welling, Auto-encoding variational Bayes (ICLR 2014); the
bounds: Burda, Grosse and Salakhutdinov, Importance weighted autoencoders (ICLR 2016).
"""

import argparse
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from rich.console import Console
from rich.table import Table

from inference import Fitted, elbo, fit, iwelbo, minibatch
from ppl import Target, gen, repeat, sample, seed, vmap

DATA = np.load(Path(__file__).parent / "data" / "digits.npz")
PIXELS = DATA["images"].reshape(-1, 64).astype(int)  # 0 to 16
HELD_OUT = np.arange(len(PIXELS)) % 6 == 5
CODE, BATCH = 8, 100
PARTICLES = {1: 50, 10: 10, 100: 2}  # how often each bound is drawn for an image


@gen
def image(nets):
    code = sample("code", dist.Normal(0.0, 1.0).expand([CODE]))
    sample("pixels", dist.Binomial(16, logits=nets["decoder"](code)))


@gen(static_argnames="n")
def images(nets, n):
    sample("image", repeat(image, n)(nets))


@gen
def read(nets, pixels):
    """The code of an image: about where it lies, and how far from there."""
    loc, log_sd = jnp.split(nets["encoder"](pixels / 8 - 1), 2)
    sample("code", dist.Normal(loc, jnp.exp(log_sd)))


@gen
def read_all(nets, pixels, numbers):
    sample("image", vmap(read, (None, 0))(nets, pixels[numbers]))


def some(nets, pixels):
    """The codes of all images given their pixels, of a hundred of them at a time."""

    def batch(numbers):
        return Target(images, (nets, len(numbers)), {"image": {"pixels": pixels[numbers]}})

    return minibatch(batch, len(pixels), BATCH, local=("image", "code"))


def one(nets, pixels):
    """The code of one image given its pixels."""
    return Target(image, (nets,), {"pixels": pixels})


OBJECTIVE = elbo(some, read_all)


def networks(key, width: int = 200) -> dict[str, eqx.nn.MLP]:
    keys = jax.random.split(key)
    return {
        "encoder": eqx.nn.MLP(64, 2 * CODE, width, 1, key=keys[0]),
        "decoder": eqx.nn.MLP(CODE, 64, width, 1, key=keys[1]),
    }


def learned(key, pixels, steps: int, width: int = 200) -> Fitted:
    start, run = jax.random.split(key)
    adam = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    return fit(run, OBJECTIVE, networks(start, width), adam, data=(pixels,), steps=steps)


def bounds(key, nets, pixels, particles: int, draws: int):
    """The bound by so many codes for each image, the mean of `draws` draws: (images,)."""
    bound = seed(iwelbo(one, read, particles))

    def mean(key, pixels):
        keys = jax.random.split(key, draws)
        return jnp.mean(jax.vmap(lambda key: bound(key, nets, pixels))(keys))

    return jax.vmap(mean)(jax.random.split(key, len(pixels)), pixels)


def independent(pixels, held_out):
    """log p of each image held out, where pixels are independent; half a count is added to all."""
    counts = np.stack([(pixels == level).sum(0) + 0.5 for level in range(17)])
    log_p = np.log(counts / counts.sum(0))
    return log_p[held_out, np.arange(held_out.shape[1])].sum(1)


def with_error(x) -> tuple[float, float]:
    """The mean over images, and its standard error."""
    x = np.asarray(x, float)
    return float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x)))


def compare(found: dict[int, np.ndarray], alone: np.ndarray) -> bool:
    """Print the table; whether each row gains more than 4 standard errors on the one before."""
    table = Table(title=f"log p of {len(alone)} images held out, in nats", title_justify="left")
    for head in ("", "mean", "standard error", "gain", "standard error"):
        table.add_column(head, justify="right" if head else "left")
    rows = {"independent pixels": alone} | {f"bound, K = {k}": x for k, x in found.items()}
    met, before = True, None
    for name, x in rows.items():
        row = [f"{value:.2f}" for value in with_error(x)]
        if before is not None:
            gain, error = with_error(x - before)
            met &= gain > 4 * error
            row += [f"{gain:+.2f}", f"{error:.2f}"]
        table.add_row(name, *row)
        before = x
    Console(width=100).print(table)
    return met


def figure(path: str, key, nets) -> None:
    """Ten images held out, what is made again of their codes, and images of new codes."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("no figure: matplotlib is not installed (pip install 'giry[plots]')")
        return
    labels = DATA["labels"][HELD_OUT]
    shown = PIXELS[HELD_OUT][[np.flatnonzero(labels == digit)[0] for digit in range(10)]]
    read_off, new = jax.random.split(key)

    def chances(code):
        return jax.nn.sigmoid(nets["decoder"](code))

    def again(key, pixels):
        return chances(seed(read.simulate)(key, nets, pixels).choices["code"])

    rows = {
        "held out": shown / 16,
        "made again": jax.vmap(again)(jax.random.split(read_off, 10), shown),
        "new": jax.vmap(chances)(jax.random.normal(new, (10, CODE))),
    }
    fig, axes = plt.subplots(3, 10, figsize=(8, 2.6), layout="constrained")
    for line, (name, made) in zip(axes, rows.items(), strict=True):
        for ax, pixels in zip(line, made, strict=True):
            ax.imshow(np.reshape(pixels, (8, 8)), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=8)
    fig.savefig(path, dpi=120)
    print(f"figure: {path}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Handwritten digits by a variational autoencoder.")
    parser.add_argument("--figure", metavar="PATH", help="draw reconstructions, to this file")
    asked = parser.parse_args(arguments)
    pixels, held_out = jnp.asarray(PIXELS[~HELD_OUT]), jnp.asarray(PIXELS[HELD_OUT])
    nets = learned(jax.random.key(0), pixels, 5000).parameters
    bound = eqx.filter_jit(bounds)
    found = {
        k: np.asarray(bound(jax.random.key(k), nets, held_out, k, draws))
        for k, draws in PARTICLES.items()
    }
    met = compare(found, independent(PIXELS[~HELD_OUT], PIXELS[HELD_OUT]))
    if asked.figure:
        figure(asked.figure, jax.random.key(1), nets)
    print("met" if met else "NOT met")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
