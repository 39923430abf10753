"""What runs inside of the server. Each script is atomic, works on one key, and reads the server's clock: no other clock counts.

Times are whole microseconds: they are exact in the floats of Lua (2**53), and are written with `%.0f`, because Lua would round
them to 14 digits. All arguments are handed in; none becomes part of a script.
"""

import hashlib
from typing import Final

__all__ = ("ACQUIRE", "PEERS", "RELEASE", "RENEW", "RETURN", "TAKE", "TRIP", "Script")


class Script:
    """A script and its digest, by which a server that has seen it is asked."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = "local t = redis.call('TIME')\nlocal now = t[1] * 1000000 + t[2]\n" + text
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()  # so the server names it


TAKE: Final = Script("""
local cost, full, patience = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local taken = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + cost
local delay = math.max(0, taken - full - now)
if delay > patience then
  return {0, delay, 0, full - (taken - cost - now)}
end
redis.call('SET', KEYS[1], string.format('%.0f', taken), 'PX', math.ceil((taken - now) / 1000))
return {1, delay, taken, full - (taken - now)}
""")
"""The generic cell rate algorithm. `KEYS[1]` is the moment when all that was taken will have drained.

Takes the cost of the tokens, the cost of a full bucket, and how long the caller would wait. Gives whether they are taken, after
how long, the moment that was written, and what is left in the bucket (less than 0: reserved ahead).
"""

RETURN: Final = Script("""
if tonumber(redis.call('GET', KEYS[1]) or 0) ~= tonumber(ARGV[1]) then
  return {0}
end
local taken = ARGV[1] - ARGV[2]
if taken > now then
  redis.call('SET', KEYS[1], string.format('%.0f', taken), 'PX', math.ceil((taken - now) / 1000))
else
  redis.call('DEL', KEYS[1])
end
return {1}
""")
"""Undo a take that wrote this moment and had this cost, unless somebody has taken since: the limit comes first."""

ACQUIRE: Final = Script("""
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local out = redis.call('ZCARD', KEYS[1])
if out >= tonumber(ARGV[2]) then
  return {0, out}
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[3]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[3] / 1000))
return {1, out + 1}
""")
"""A lease for a name, if fewer than so many are out, for so long. Leases that have run out make room."""

RELEASE: Final = Script("""
return {redis.call('ZREM', KEYS[1], ARGV[1])}
""")
"""Give a lease back."""

RENEW: Final = Script("""
local lost = {}
for index = 3, #ARGV do
  local held = redis.call('ZSCORE', KEYS[1], ARGV[index])
  if not held then
    lost[#lost + 1] = index - 3
  end
  if held or redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[index])
  end
end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] / 1000))
return lost
""")
"""Renew leases. Gives the indices of those that were not there any more; these are taken anew where there is room.

One that has run out and is still there may be renewed: nobody has asked for a place since.
"""

TRIP: Final = Script("""
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIRE', KEYS[1], math.ceil((last[2] - now) / 1000))
return {1}
""")
"""Say that the breaker of this name is open for so long."""

PEERS: Final = Script("""
local others, latest = 0, 0
local open = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf', 'WITHSCORES')
for index = 1, #open, 2 do
  if open[index] ~= ARGV[1] then
    others, latest = others + 1, tonumber(open[index + 1])
  end
end
return {others, latest, math.max(0, latest - now)}
""")
"""How many others are open, until when the last of them is, and for how long from now."""
