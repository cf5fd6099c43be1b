"""Chroma, on a path, over HTTP and in the cloud."""

from reembed.run.program import is_program

if is_program():
    from reembed.stores.chroma.delayed import delay

    delay()  # before a module here imports it
