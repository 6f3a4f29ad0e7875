"""The file system for other servers than Amazon's, as it travels to workers."""

import os
import pickle
import subprocess
import sys

from uniemo_ray.store.arrow_s3 import PlainS3FileSystem

SHOW = """
import os, pickle, sys
found = pickle.load(sys.stdin.buffer)
again = pickle.loads(pickle.dumps(found))
print(type(again).__name__, os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"], again.region)
"""


def test_a_worker_sends_bodies_as_its_driver_does() -> None:
    options = {"endpoint_override": "127.0.0.1:1", "scheme": "http", "region": "here"}
    sent = pickle.dumps(PlainS3FileSystem(**options, access_key="a", secret_key="b"))
    bare = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    worker = subprocess.run([sys.executable, "-c", SHOW], input=sent, env=bare, capture_output=True)
    assert worker.stdout.decode().split() == ["PlainS3FileSystem", "when_required", "here"], worker.stderr
