"""`scripts/bench switch`: what switching versions costs, and what many versions cost.

`run` has the command line; `hot` switches under load over much state and little, `sharing`
compares one version with several, `restoring` brings state back from a checkpoint.
"""
