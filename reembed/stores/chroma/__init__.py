"""Chroma, on a path, over HTTP and in the cloud."""

from reembed.stores.chroma.delayed import delay

delay()  # before a module here imports it
