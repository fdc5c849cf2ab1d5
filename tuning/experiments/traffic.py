#!/usr/bin/env python3
"""Traffic for run.sh: clients, servers and a slow path, each a command. Only what Debian's python3 has."""

import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

MS = 1000.0


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def report(name, seconds):
    print(f"{name}: p50 {percentile(seconds, 0.5) * MS:.1f} ms, p99 {percentile(seconds, 0.99) * MS:.1f} ms, "
          f"max {max(seconds) * MS:.1f} ms")


def connected(address, port, blocking=True):
    sock = socket.socket()
    sock.setblocking(blocking)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    code = sock.connect_ex((address, port))
    if code not in (0, errno.EINPROGRESS):
        sock.close()
        raise OSError(code, os.strerror(code))
    return sock


def storm(address, port, count, server):
    """Connects COUNT times while the process SERVER stands still for 300 ms or until all are under way, sends a byte on
    each, and tells how long after that the echo came."""
    poll = select.epoll()
    waiting, took = {}, []
    os.kill(server, signal.SIGSTOP)
    start = time.monotonic()
    for _ in range(count):
        sock = connected(address, port, blocking=False)
        waiting[sock.fileno()] = sock
        poll.register(sock, select.EPOLLOUT)
    sent = answer_storm(poll, waiting, took, lambda: time.monotonic() > start + 0.3, set())
    os.kill(server, signal.SIGCONT)
    resumed = time.monotonic()
    answer_storm(poll, waiting, took, lambda: not waiting or time.monotonic() > resumed + 30, sent)
    print(f"{count} connects, {len(took)} answered, {len(waiting)} unanswered")
    report("from the server's going on to the echo", [at - resumed for at in took])


def answer_storm(poll, waiting, took, done, sent):
    while not done():
        for fd, events in poll.poll(0.05):
            if events & select.EPOLLOUT and fd not in sent:
                waiting[fd].send(b"x")
                sent.add(fd)
                poll.modify(fd, select.EPOLLIN)
            elif events & select.EPOLLIN and waiting[fd].recv(1):
                took.append(time.monotonic())
                poll.unregister(fd)
                del waiting[fd]
    return sent


def hold(address, port, processes):
    """Connects and keeps every connection, in so many processes, until no port is left. Nobody accepts: the listener's
    queue keeps them, which takes no descriptor on that side."""
    listener = socket.create_server((address, port), backlog=65535)
    pipes, children = [], []
    for _ in range(processes):
        reader, writer = os.pipe()
        pipes.append(reader)
        children.append(os.fork())
        if children[-1] == 0:
            # Not to be left behind: PR_SET_PDEATHSIG.
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
            listener.close()
            kept = []
            try:
                while len(kept) < 19000:
                    kept.append(connected(address, port))
                ended = "descriptors"
            except OSError as error:
                ended = errno.errorcode[error.errno]
            os.write(writer, f"{len(kept)} {ended}".encode())
            signal.pause()
        os.close(writer)
    told = [os.read(reader, 64).decode().split() for reader in pipes]
    print(f"{sum(int(count) for count, _ in told)} connections held at once, then "
          f"{', '.join(sorted({ended for _, ended in told}))}")
    for child in children:
        os.kill(child, signal.SIGKILL)


def churn(address, port, count):
    """Connects and closes COUNT times, one after the other, and stops where no port is left."""
    start = time.monotonic()
    for done in range(count):
        try:
            connected(address, port).close()
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            print(f"no port left after {done} connections in {time.monotonic() - start:.0f} s")
            return
    print(f"{count} connections in {time.monotonic() - start:.0f} s, a port for each")


def migrate(address, port, count):
    """Two listeners share a port; one closes with connections in its queue, as at a restart. Tells what became of them."""
    leaving = socket.create_server((address, port), backlog=4096, reuse_port=True)
    staying = socket.create_server((address, port), backlog=4096, reuse_port=True)
    staying.setblocking(False)
    clients = [connected(address, port) for _ in range(count)]
    leaving.close()
    answered = []
    try:
        while True:
            answered.append(staying.accept()[0])
            answered[-1].send(b"x")
    except BlockingIOError:
        pass
    reset = 0
    for sock in clients:
        try:
            sock.recv(1)
        except ConnectionResetError:
            reset += 1
    print(f"{count} connections in two queues, one of them closes: {count - reset} answered by the other, {reset} reset")


def serve(address, port, size):
    """Answers every byte with SIZE bytes, one client after the other."""
    listener = socket.create_server((address, port))
    print("ready", flush=True)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while sock.recv(1):
            sock.sendall(b"x" * size)


def ask(address, port, size, pause, rounds):
    """Asks for SIZE bytes ROUNDS times with PAUSE seconds of silence before each."""
    sock = connected(address, port)
    took = []
    for turn in range(rounds + 5):
        time.sleep(pause if turn >= 5 else 0)
        start = time.monotonic()
        sock.send(b"?")
        left = size
        while left:
            got = len(sock.recv(min(left, 65536)))
            if not got:
                raise EOFError("the server closed")
            left -= got
        # The first five open the window of a fresh connection.
        if turn >= 5:
            took.append(time.monotonic() - start)
    report(f"a reply of {size} bytes after {pause} s of silence", took)


def feed(address, port):
    """Sends the newest time, in blocks of 1 KiB, whenever the socket takes one."""
    listener = socket.create_server((address, port))
    print("ready", flush=True)
    sock, _ = listener.accept()
    sock.setblocking(False)
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while True:
        poll.poll()
        try:
            sock.send(struct.pack("d", time.monotonic()) * 128)
        except BlockingIOError:
            pass
        except OSError:
            return


def watch(address, port, seconds):
    """Tells how old the times are on arrival."""
    sock = connected(address, port)
    start, ages, total, rest = time.monotonic(), [], 0, b""
    while time.monotonic() - start < seconds:
        got = sock.recv(65536)
        if not got:
            raise EOFError("the server closed")
        rest += got
        whole = len(rest) // 8 * 8
        if time.monotonic() - start > seconds / 3:
            total += whole
            ages.append(time.monotonic() - struct.unpack_from("d", rest, whole - 8)[0])
        rest = rest[whole:]
    report("age of a value on arrival", ages)
    print(f"throughput: {total * 8 / (seconds * 2 / 3) / 1e6:.1f} Mbit/s")


def path(left, right, delay):
    """Carries packets between devices of two named namespaces, DELAY seconds late: there is no netem here."""
    ends = []
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    for name, address in (left.split(","), right.split(",")):
        enter(os.open(f"/run/netns/{name}", os.O_RDONLY))
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        # TUNSETIFF with IFF_TUN and IFF_NO_PI.
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"slow", 0x1001))
        subprocess.run(["ip", "address", "add", f"{address}/24", "dev", "slow"], check=True)
        subprocess.run(["ip", "link", "set", "slow", "up", "txqueuelen", "10000"], check=True)
        enter(os.dup(home))
        ends.append(fd)
    print("ready", flush=True)
    queue = []
    while True:
        wait = max(0, queue[0][0] - time.monotonic()) if queue else None
        for fd in select.select(ends, [], [], wait)[0]:
            try:
                for _ in range(64):
                    queue.append((time.monotonic() + delay, ends[1 - ends.index(fd)], os.read(fd, 65536)))
            except BlockingIOError:
                pass
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, fd, packet = queue.pop(0)
            try:
                os.write(fd, packet)
            except OSError:
                pass


def enter(fd):
    """Goes into a network namespace. Python has setns only since 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)


COMMANDS = {
    "storm": (storm, str, int, int, int),
    "hold": (hold, str, int, int),
    "churn": (churn, str, int, int),
    "migrate": (migrate, str, int, int),
    "serve": (serve, str, int, int),
    "ask": (ask, str, int, int, float, int),
    "feed": (feed, str, int),
    "watch": (watch, str, int, float),
    "path": (path, str, str, float),
}

if __name__ == "__main__":
    command, *kinds = COMMANDS[sys.argv[1]]
    command(*(kind(text) for kind, text in zip(kinds, sys.argv[2:])))
