"""Verdicts that an episode of any environment may have; others are the environment's own.

Apart from what plays episodes, so that reading records needs no torch.
"""

CORRECT, WRONG, ERROR, OVERLONG = "correct", "wrong", "error", "overlong"
