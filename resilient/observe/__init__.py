"""What happened: typed events, listeners that hear them, timelines that keep them, logs that tell them.

Strategies make events; `listeners` says who hears them. A timeline is a listener that remembers, the logs are one that
writes what an operator must see. Importing this package switches the logs on.
"""

from resilient.observe.listeners import Dispatch, Listener, LiveListener, add_listener, listening, remove_listener
from resilient.observe.logs import configure_logging
from resilient.observe.timeline import Timeline, record_timeline, timeline_of

__all__ = (
    "Dispatch",
    "Listener",
    "LiveListener",
    "Timeline",
    "add_listener",
    "configure_logging",
    "listening",
    "record_timeline",
    "remove_listener",
    "timeline_of",
)
