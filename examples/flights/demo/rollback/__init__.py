"""`scripts/demo rollback`: versions that take over and are taken back with windows half full.

`rehearse` runs it. What must come out is worked out by the reference model, for the version
that served where each as-of time closed; so are the corrections of a repair, and of leaving bad
events out.
"""
