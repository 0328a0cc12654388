#!/bin/sh
# In two processes, device_put refuses a double that 32 bits cannot hold, as if it were not the same.
#
# Versions: jax and jaxlib 0.10.2, numpy 2.4.6 (0.12.0.1 does the same); CPU, Gloo, 64 bits not enabled.
# Behaviour: a value of the host put whole on all devices of two processes is first compared among
# the processes. What they gather is rounded to 32 bits and compared with the double as it was: the
# same 0.1 in both is "not the same on each process" (AssertionError); 0.5 and np.float32(0.1) pass,
# and so does 0.1 where 64 bits are enabled. In one process 0.1 is rounded without a word.
# Seen: 0.1 refused as not the same, float32(0.1) put, 0.5 put; with 64 bits 0.1 put
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder" # so that no other code is imported
cat >put.py <<'PY'
import sys

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

number, address, wide = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "64"
jax.config.update("jax_enable_x64", wide)
jax.distributed.initialize(address, 2, number)
whole = NamedSharding(jax.make_mesh((2,), ("x",)), PartitionSpec())


def put(value):
    try:
        jax.device_put(value, whole)
    except AssertionError as error:
        return "refused as not the same" if "not the same" in str(error) else "refused"
    return "put"


values = {"0.1": 0.1} if wide else {"0.1": 0.1, "float32(0.1)": np.float32(0.1), "0.5": 0.5}
print(", ".join(f"{name} {put(value)}" for name, value in values.items()))
PY
port=$("$folder/venv/bin/python" -c \
    'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
both() {
    JAX_PLATFORMS=cpu venv/bin/python put.py 1 "localhost:$port" "$1" >/dev/null 2>&1 &
    JAX_PLATFORMS=cpu venv/bin/python put.py 0 "localhost:$port" "$1" 2>/dev/null | tail -n 1
    wait
}
seen="$(both 32); with 64 bits $(both 64)"
echo "$seen"
[ "$seen" = "0.1 refused as not the same, float32(0.1) put, 0.5 put; with 64 bits 0.1 put" ]
