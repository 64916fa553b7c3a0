"""A foreign file in a process of its own: what its runtime does there (ends, hangs, takes all memory) is an error here, no more.

process.py    the other process, as the one that asks sees it: its limits of time and memory, how it ended
worker.py     what runs in it
messages.py   what goes between the two: JSON and arrays of numbers
runner.py     a Runner whose file is run there

A runtime is native code, and few are made for files that somebody changed. Within the library, formats.load runs a file in the
process that asks, and so do the gates of an export, whose files have just been printed.
"""
