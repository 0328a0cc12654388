"""The networks and the data that all programs have in common, those of JAX peers included.

Nothing of this project is imported, since peers read this file in interpreters of their own.
"""

import jax
import jax.numpy as jnp
import numpy as np

PIXELS, HIDDEN, LATENT = 784, 400, 20
STATE, WIDE, ROWS = 64, 256, 32
SMALL, HALF = 64, 32
"""Pixels of the small images, and of their left half."""
SIZES = {"image": PIXELS, "right half": SMALL}
"""What binary choices make, and the pixels of the images: all of one, or its right half."""


def images(rows: int, pixels: int = PIXELS):
    """Binary images, as integers."""
    return jnp.asarray(np.random.default_rng(0).random((rows, pixels)) < 0.3, jnp.int32)


def _weights(random, rows, columns):
    return jnp.asarray(random.normal(size=(rows, columns)) / rows**0.5, jnp.float32)


def _layer(random, rows, columns):
    return {"w": _weights(random, rows, columns), "b": jnp.zeros(columns)}


def _affine(layer, x):
    return x @ layer["w"] + layer["b"]


# -- the autoencoder ----------------------------------------------------------------------


def autoencoder():
    random = np.random.default_rng(1)
    encoder = {
        "hidden": _layer(random, PIXELS, HIDDEN),
        "mean": _layer(random, HIDDEN, LATENT),
        "log_sd": _layer(random, HIDDEN, LATENT),
    }
    decoder = {
        "hidden": _layer(random, LATENT, HIDDEN),
        "pixels": _layer(random, HIDDEN, PIXELS),
    }
    return {"encoder": encoder, "decoder": decoder}


def encode(encoder, x):
    """Mean and standard deviation of the latents of images."""
    hidden = jax.nn.softplus(_affine(encoder["hidden"], x))
    return _affine(encoder["mean"], hidden), jnp.exp(_affine(encoder["log_sd"], hidden))


def decode(decoder, z):
    """Log odds of the pixels."""
    return _affine(decoder["pixels"], jax.nn.softplus(_affine(decoder["hidden"], z)))


# -- binary choices in a chain, each made from a recurrent state ---------------------------------


def chain(choices: int, made: str):
    """Parameters; the decoder of a right half reads the left half, too."""
    random, pixels = np.random.default_rng(2), SIZES[made]
    half = made == "right half"
    return {
        "read": _weights(random, pixels, STATE),
        "state": _weights(random, STATE, STATE),
        "choice": _weights(random, STATE, 1)[:, 0],
        "logit": _weights(random, STATE, 1)[:, 0],
        "code": _weights(random, choices, WIDE),
        **({"context": _weights(random, HALF, WIDE)} if half else {}),
        "pixels": _weights(random, WIDE, HALF if half else pixels),
    }


def recur(p, features, h, z):
    """The state after a choice `z`; `features` are those of the image."""
    return jnp.tanh(features + h @ p["state"] + z[..., None] * p["choice"])


def halves(p, x):
    """What the decoder reads of images, or None, and what it makes."""
    return (x[..., :HALF], x[..., HALF:]) if "context" in p else (None, x)


def logits_of(p, code, seen):
    """Log odds of what is made, from choices, and from the left half where that is read."""
    hidden = code @ p["code"]
    if seen is not None:
        hidden = hidden + seen @ p["context"]
    return jnp.tanh(hidden) @ p["pixels"]
