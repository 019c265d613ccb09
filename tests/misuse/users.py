# SPDX-License-Identifier: GPL-2.0
#
# What users of the files of misuse.ko get (files.rs), while it is loaded and when it has gone.

import errno
import os
import select
import subprocess
import threading


def check(what, got, wanted):
    print(f"{what}: {got}", flush=True)
    assert got == wanted, f"{what} must give {wanted}"


def call(function, *arguments):
    """Returns the result of a system call, or the name of its error."""
    try:
        return function(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)


def open_file(name, flags=os.O_RDWR):
    return os.open("/proc/misuse/" + name, flags)


def polls(polled):
    return int.from_bytes(os.read(polled, 8), "little")


subprocess.run(["insmod", "misuse.ko"], check=True)

greedy = open_file("greedy")
check("a read that copies all it can", os.read(greedy, 8192) == b"x" * 8192, True)
reader, writer = os.pipe()
spliced = os.splice(greedy, writer, 4096)
check("bytes that were spliced as such", os.read(reader, 65536) == b"x" * spliced, True)
check("a write of 3 bytes that takes more", os.write(greedy, b"abc"), 3)
check("a seek to the end of more than there can be", call(os.lseek, greedy, 0, os.SEEK_END), "EOVERFLOW")

stream = open_file("stream", os.O_RDONLY)
for _ in range(2):
    check("a read at the position of a stream", os.read(stream, 100), b"stream")
check("a seek in it", call(os.lseek, stream, 0, os.SEEK_SET), "ESPIPE")
check("a read at a position of it", call(os.pread, stream, 1, 1), "ESPIPE")
check("a splice of it", call(os.splice, stream, writer, 1), "EINVAL")

unending = open_file("unending")
check("a read that says that it goes on", call(os.read, unending, 1), "EIO")
check("a write that does", call(os.write, unending, b"x"), "EIO")

# Polls that wait on queues that go.
polled = open_file("polled")
watcher = select.epoll()
watcher.register(polled, select.EPOLLIN)
before = polls(polled)


def wait():
    waiting = select.poll()
    waiting.register(polled, select.POLLIN)
    waiting.register(reader, select.POLLIN)
    both = [(polled, select.POLLIN), (reader, select.POLLIN)]
    check("a poll whose queue has gone, and the module", waiting.poll(), both)


waiter = threading.Thread(target=wait)
waiter.start()
while polls(polled) == before:
    os.sched_yield()
check("a write that drops a queue on which polls wait", os.write(polled, b"x"), 1)
subprocess.run(["rmmod", "misuse"], check=True)
os.write(writer, b"x")
waiter.join()
watcher.close()
for file in greedy, stream, unending, polled:
    check("a read when the module has gone", call(os.read, file, 1), "EIO")
