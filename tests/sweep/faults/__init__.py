"""What may go wrong under a sweep: kills, failing system calls, loss of power; all from outside.

The library has no hooks for this. The calls by which Python reaches the file system are wrapped
(`calls`), so that a test can stop, fail or write down each of them.
"""
