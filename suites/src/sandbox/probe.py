"""Tries what a program in the sandbox must not be able to do, and what it must.

Prints `held`, or what was otherwise. Arguments: a file that must stay unseen, and the limit of the
address space in bytes.
"""

import os
import sys
import threading

secret, memory_bytes = sys.argv[1], int(sys.argv[2])
wrong = []


def fails(name, action):
    try:
        action()
    except (OSError, MemoryError, RuntimeError):
        return
    wrong.append(name + " is possible:")


def works(name, action):
    try:
        action()
    except BaseException as error:  # of any kind: it is reported
        wrong.append("%s fails (%r):" % (name, error))


def write(path):
    with open(path, "w") as file:
        file.write("x")


def connect(family, kind):
    import _socket

    _socket.socket(getattr(_socket, family), getattr(_socket, kind)).close()


def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def start_thread():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


fails("reading a file outside", lambda: open(secret).read())
fails("listing a folder outside", lambda: os.listdir(os.path.dirname(secret)))
fails("writing a file outside", lambda: write(secret + ".new"))
fails("truncating a file outside", lambda: os.open(secret, os.O_RDONLY | os.O_TRUNC))
fails("reading /etc/passwd", lambda: open("/etc/passwd").read())
fails("reading another process", lambda: open("/proc/1/environ", "rb").read())
fails("a TCP socket", lambda: connect("AF_INET", "SOCK_STREAM"))
fails("a UDP socket", lambda: connect("AF_INET", "SOCK_DGRAM"))
fails("a local socket", lambda: connect("AF_UNIX", "SOCK_STREAM"))
fails("another process", fork)
fails("a signal to the parent", lambda: os.kill(os.getppid(), 0))
fails("a signal to every process", lambda: os.kill(-1, 0))
fails("too much memory", lambda: bytearray(memory_bytes))
if os.getuid() == 0:
    wrong.append("the program is root:")
if len(os.environ) > 8:
    wrong.append("the environment is passed on:")
works("writing to the scratch folder", lambda: write("probe"))
works("a thread", start_thread)
print(" ".join(wrong) or "held")
