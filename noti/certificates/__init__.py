"""Certificates: what they name, whether they can be used, and how they are made.

Pure but for `files.py` (reads and writes files) and `context.py` (makes `ssl.SSLContext`s). The
sockets that use them are in `rpc`, `web` and `ingest`; the commands in `cli/certs.py`.
"""
