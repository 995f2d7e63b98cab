"""What is wrong with a host: rules over an observation, each a module with its page beside it.

A rule is pure: (observation, policy or None) in, findings out. Its module holds TITLE and
`check`; its code is the module's name; its page says what, why, a bad and a good example (both
are run as tests) and how to mend it. `judge.judge` runs them all.
"""
