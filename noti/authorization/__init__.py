"""Authorization: who may publish what, and who may read it.

`presented` finds the token of a request, `verifying` checks its signature, `claims` makes a `Grant`
of what it says, and `authorizer` does all of it for one request, with a cache. `rejection` says how
a request is answered that has no usable token. `keys` reads keys, `key_files` and `jwks` keep them
fresh, `revocations` knows whose tokens are refused before they expire. `signing` makes tokens, for
`noti token`.

Enters: what requests present; files and addresses of keys; revocations.
Leaves: grants; rejections, in the terms of the request's dialect.
Never: waits for a key while a request waits; takes a key, or the choice of an algorithm, from a
token; shows a secret or a token.
"""
