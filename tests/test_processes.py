"""Runs in processes of their own: killed and resumed, on several devices, in two at once."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
import jax, numpy as np, jax.numpy as jnp, numpyro.distributions as dist
from inference import cycle, hmc, mh, sample_posterior
from ppl import Target, gen, sample

def setup():
    @gen
    def model():
        mu = sample("mu", dist.Normal(0.0, 1.0))
        k = sample("k", dist.Bernoulli(0.3))
        sample("y", dist.Normal(mu + k, 1.0))
    target = Target(model, (), {"y": 1.5})
    return target, cycle(hmc(target, "mu", steps=3), mh(target, "k"))

"""


def python(code, **env):
    """A process that runs `code` after the setup."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir or "")}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + code],
        env={**os.environ, **cache, **env},
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


RUN = """
target, kernel = setup()
draws = sample_posterior(
    jax.random.key(1), target, kernel, draws=40_000, warmup=5_000, chains=2, thin=2, {checkpoint}
)
np.save(sys.argv[1] if len(sys.argv) > 1 else {out!r}, np.stack([draws["mu"], draws["k"]]))
"""


KILLS = 20


def test_killed_twenty_times_and_resumed_it_is_the_same_run(tmp_path):
    """By SIGKILL, at times spread over the run, in processes of their own."""
    finished(python(RUN.format(checkpoint="", out=str(tmp_path / "whole.npy"))))
    folder = tmp_path / "run"
    code = RUN.format(checkpoint=f"checkpoint={str(folder)!r}", out=str(tmp_path / "again.npy"))
    kills = 0
    for attempt in range(200):
        process = python(code)
        if kills == KILLS:
            finished(process)
            break
        before = max((f.stat().st_mtime_ns for f in folder.glob("*.npz")), default=0)
        while process.poll() is None:
            files = [f.stat().st_mtime_ns for f in folder.glob("*.npz")]
            if len([t for t in files if t > before]) > attempt % 3:
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                break
            time.sleep(0.001)  # between looks at the folder
        process.communicate()
    assert kills == KILLS
    one, other = np.load(tmp_path / "whole.npy"), np.load(tmp_path / "again.npy")
    assert one.tobytes() == other.tobytes()


def test_a_thousand_chains_on_four_devices_are_those_of_one():
    code = """
target, kernel = setup()
mesh = jax.make_mesh((4,), ("chains",))
runs = [
    sample_posterior(jax.random.key(1), target, kernel, draws=20, warmup=20, chains=1000, mesh=m)
    for m in (None, mesh)
]
same = [np.array_equal(runs[0].choices[n], runs[1].choices[n]) for n in ("mu", "k")]
print(len(jax.devices()), runs[1]["mu"].shape, all(same))
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    assert finished(python(code, **flags)) == "4 (1000, 20) True\n"


def test_two_processes_give_what_one_gives():
    """The step size is 0.1, and 64 bits are not enabled. `jax.device_put` of jax 0.10.2, and of
    0.12.0.1, takes the same 0.1 in two processes for two numbers: it compares what it gathers in
    32 bits with what it was given (findings/jax_device_put_doubles_in_processes.sh)."""
    code = """
import socket
address, number = sys.argv[1:] or (None, None)
if number is not None:
    jax.distributed.initialize(address, 2, int(number))
target, kernel = setup()
mesh = jax.make_mesh((4,), ("chains",))
few = {"draws": 20, "warmup": 20, "chains": 8}
draws = sample_posterior(jax.random.key(1), target, kernel, mesh=mesh, **few)
print(jax.process_count(), draws["mu"].shape, draws["mu"].tobytes().hex())
"""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"

    def process(number, devices):
        script = f"sys.argv[1:] = {[address, str(number)] if number is not None else []!r}\n" + code
        return python(script, XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}")

    alone = finished(process(None, 4)).split()
    pair = [process(0, 2), process(1, 2)]
    try:
        outs = [finished(p).splitlines()[-1].split() for p in pair]  # Gloo greets on stdout
    finally:
        for p in pair:  # where one has failed, the other waits for it
            p.kill()
            p.communicate()
    assert [out[0] for out in outs] == ["2", "2"] and alone[0] == "1"
    assert outs[0][1:] == outs[1][1:] == alone[1:]
