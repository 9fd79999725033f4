"""Certificates: what they name, whether they can be used, and how they are made.

`credentials` checks what one side of a connection shows and trusts, before it is used; `context`
makes `ssl.SSLContext`s of that, `renewal` makes them anew when the files change, and `issuing`
makes the certificates of a cluster for `noti certs`. `files`, `context`, `renewal` and
`rejection_log` touch the world; the sockets are in `noti.rpc`, `noti.http` and
`noti.publishing.nats`.

Enters: PEM files, profiles, names to certify.
Leaves: contexts for every listener and dialer, certificates, one line for each unusable file.
Never: trusts a certificate it could not decode to the last field; shows a private key.
"""
