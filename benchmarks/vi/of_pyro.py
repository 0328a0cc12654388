"""Pyro's training step of the autoencoder, in an interpreter that has it.

PYTHON benchmarks/vi/of_pyro.py autoencoder BATCH
"""

import sys

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from serve import serve
from torch import nn

PIXELS, HIDDEN, LATENT = 784, 400, 20


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(PIXELS, HIDDEN)
        self.mean, self.log_sd = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, HIDDEN), nn.Softplus(), nn.Linear(HIDDEN, PIXELS)
        )

    def model(self, x):
        pyro.module("autoencoder", self)
        with pyro.plate("images", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1))
            pixels = dist.Bernoulli(logits=self.decoder(z), validate_args=False).to_event(1)
            pyro.sample("x", pixels, obs=x)

    def guide(self, x):
        pyro.module("autoencoder", self)
        hidden = nn.functional.softplus(self.hidden(x))
        with pyro.plate("images", len(x)):
            posterior = dist.Normal(self.mean(hidden), self.log_sd(hidden).exp())
            pyro.sample("z", posterior.to_event(1))


if __name__ == "__main__":
    rows = int(sys.argv[2])
    pyro.enable_validation(False)
    x = torch.tensor(np.random.default_rng(0).random((rows, PIXELS)) < 0.3, dtype=torch.float32)
    nets = Autoencoder()
    svi = SVI(nets.model, nets.guide, Adam({"lr": 1e-3}), Trace_ELBO())
    serve(lambda: svi.step(x))
