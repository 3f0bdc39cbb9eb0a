"""Owns signing in at an OpenID Connect provider: what is asked of it, what it is believed, how a sign-in goes.

Sessions are left to `checkpoint.web.identity`. `settings`, `metadata` and `claims` are pure; `keys` has the signatures,
`provider` the network, `flows` what a sign-in under way must remember, and `pages` the answers.
"""
