"""The switch by which tests make all strategies inert.

`enabled` is True, always, but in a block of `resilient.testing.disabled()`. It is read as `_switch.enabled` where a call
that somebody listens to, or a permit taken by hand, enters the strategies.
"""

__all__ = ("enabled",)

enabled: bool = True
