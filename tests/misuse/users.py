# SPDX-License-Identifier: GPL-2.0
#
# What users of the files of misuse.ko get (files.rs), while it is loaded and when it has gone.

import ctypes
import errno
import os
import select
import struct
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


class Aio:
    """Polls by io_submit(), for which Python has no module."""

    # io_setup(), io_submit(), io_getevents()
    NUMBERS = {"x86_64": (206, 209, 208), "aarch64": (0, 2, 4)}[os.uname().machine]
    POLL = 5

    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.setup, self.submit, self.getevents = self.NUMBERS
        self.context = ctypes.c_ulong()
        self.call(self.setup, 8, ctypes.byref(self.context))

    def call(self, number, *arguments):
        result = self.libc.syscall(ctypes.c_long(number), *arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), f"system call {number}")
        return result

    def poll(self, file, events):
        # struct iocb
        iocb = ctypes.create_string_buffer(struct.pack("QIiHhIQQqQII", 0, 0, 0, self.POLL, 0, file, events, 0, 0, 0, 0, 0))
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(iocb))
        return self.call(self.submit, self.context, ctypes.c_long(1), pointers)

    def wait(self):
        """Returns the events of one poll."""
        # struct io_event
        event = ctypes.create_string_buffer(32)
        self.call(self.getevents, self.context, ctypes.c_long(1), ctypes.c_long(1), event, None)
        return struct.unpack("QQqq", event)[2]


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

# A process of which the first thread exits first.
watched = open_file("watched")
child = os.fork()
if child == 0:
    os.write(watched, b"x")

    def exit_last():
        while b") Z" not in open(f"/proc/{os.getpid()}/stat", "rb").read():
            os.sched_yield()
        os._exit(0)

    threading.Thread(target=exit_last).start()
    SYS_EXIT = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
    ctypes.CDLL(None).syscall(ctypes.c_long(SYS_EXIT), 0)
os.waitpid(child, 0)
exits = int.from_bytes(os.read(watched, 8), "little")
check("exits whose handler looks up a process", exits, 1)

# Polls that wait on queues that go.
polled = open_file("polled")
watcher = select.epoll()
watcher.register(polled, select.EPOLLIN)
aio = Aio()
check("a poll by io_submit()", aio.poll(polled, select.POLLIN), 1)
before = polls(polled)


def wait():
    waiting = select.poll()
    waiting.register(polled, select.POLLIN)
    waiting.register(reader, select.POLLIN)
    ready = dict(waiting.poll())
    check("a poll whose queue has gone, and the module", ready.get(polled), select.POLLIN)


waiter = threading.Thread(target=wait)
waiter.start()
while polls(polled) == before:
    os.sched_yield()
check("a write that drops a reference to a queue on which polls wait", os.write(polled, b"x"), 1)
subprocess.run(["rmmod", "misuse"], check=True)
os.write(writer, b"x")
waiter.join()
check("that poll, when the module has gone", aio.wait() & select.POLLIN, select.POLLIN)
watcher.close()
for file in greedy, stream, unending, watched, polled:
    check("a read when the module has gone", call(os.read, file, 1), "EIO")
