#!/usr/bin/python3
"""client.py CONF POOL IMAGE: a client that has an RBD image open, as a virtual machine has it.

Reads one word per line: `write` writes 512 bytes `x` and flushes, `overwrite` the same with `y`, `lock` takes the image's
own exclusive lock. Answers each with `ok`, or `error` and what it was. Ends with its input.
"""
import sys

import rados
import rbd

conf, pool, name = sys.argv[1:4]
cluster = rados.Rados(conffile=conf)
cluster.connect()
image = rbd.Image(cluster.open_ioctx(pool), name)
print("open", flush=True)
for line in sys.stdin:
    word = line.strip()
    try:
        if word == "lock":
            image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        else:
            image.write((b"y" if word == "overwrite" else b"x") * 512, 0)
            image.flush()
        print("ok", flush=True)
    except Exception as e:
        print("error", repr(e), flush=True)
