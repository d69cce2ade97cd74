#!/usr/bin/env python3
"""Puts to redis, each of which waits until one replica has it (SET, then WAIT 1), over many connections.

redis-benchmark sends one command at a time and cannot. Prints: puts per second, p50 and p99 in ms.
usage: redis-wait.py PORT SECONDS CONNECTIONS
"""
import selectors
import socket
import sys
import time


def command(*parts):
    """A command in the protocol of redis."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


PUT = command(b"SET", b"key-000000000000", b"v" * 84) + command(b"WAIT", b"1", b"0")
# Both replies: OK, and that one replica or both have it.
REPLIES = (b"+OK\r\n:1\r\n", b"+OK\r\n:2\r\n")


def main():
    port, seconds, connections = (int(argument) for argument in sys.argv[1:4])
    poll = selectors.DefaultSelector()
    begins = time.monotonic() + 1
    ends = begins + seconds
    times = []
    for _ in range(connections):
        link = socket.create_connection(("127.0.0.1", port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(PUT)
        poll.register(link, selectors.EVENT_READ, [time.monotonic(), b""])
    now = time.monotonic()
    while now < ends:
        for key, _ in poll.select():
            state, link = key.data, key.fileobj
            state[1] += link.recv(64)
            if len(state[1]) < len(REPLIES[0]):
                continue
            if state[1] not in REPLIES:
                sys.exit(f"redis answers {state[1]!r}")
            now = time.monotonic()
            if now >= begins:
                times.append(now - state[0])
            state[0], state[1] = now, b""
            link.sendall(PUT)
    times.sort()
    if not times:
        sys.exit("nothing was answered in time")
    p50, p99 = (times[int(len(times) * at)] * 1000 for at in (0.5, 0.99))
    print(f"{len(times) // seconds} puts/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms")


main()
