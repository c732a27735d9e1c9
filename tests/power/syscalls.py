"""What strace recorded, as a list of events on the data directory.

strace prints the beginning and the end of each call in the order in which it saw them, and no thread goes on before
strace has seen the end of its call. So the order of the lines is an order in which things happened. If two calls
overlap, the file operation is taken to happen at the end of its call.
"""
import os
import re

from disk import ROOT, Misunderstood

# With --seccomp-bpf the processes stop only at these calls.
OPENING = ("open", "openat", "openat2", "creat")
NAMING = ("truncate", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat",
          "mkdir", "mkdirat", "rmdir")
WRITING = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
SYNCING = ("fsync", "fdatasync")
ON_DESCRIPTOR = (*WRITING, *SYNCING, "ftruncate", "lseek", "close", "dup", "dup2", "dup3")
OTHERS = ("clone", "clone3", "chdir", "fchdir")
# Not modelled: an error if they name a file of the data directory.
UNKNOWN = ("sync", "syncfs", "sync_file_range", "fallocate", "copy_file_range", "sendfile", "splice", "mmap", "mknod",
           "mknodat")
OPTIONS = ("-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", str(1 << 26), "-e", "signal=none", "-e",
           "trace=" + ",".join("?" + name for name in OPENING + NAMING + ON_DESCRIPTOR + OTHERS + UNKNOWN))

LINE = re.compile(r"(\d+) +(.*)")
CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)", re.S)
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
DESCRIPTOR = re.compile(r"(\d+)(?:<((?:\\x[0-9a-f]{2})*)>)?")


class Call:
    def __init__(self, process, text):
        self.process = process
        self.text = text
        self.name = text[:text.index("(")]
        self.begun_sync = None
        self.result = None
        self.descriptor = self.opened = None

    def finish(self):
        found = CALL.match(self.text)
        if not found:
            raise Misunderstood(f"cannot parse {self.text[:200]}")
        self.result = None if found[3] == "?" else int(found[3])

    @property
    def arguments(self):
        return self.text[self.text.index("(") + 1:].split(", ")

    def strings(self):
        found = []
        for match in TEXT.finditer(self.text):
            if match[2]:
                raise Misunderstood(f"strace cut a string of {self.name}")
            found.append(decode(match[1]))
        return found


def decode(text):
    return bytes.fromhex(text.replace("\\x", ""))


class Opened:
    """An open file or directory of the data directory."""

    def __init__(self, inode, flags):
        self.inode = inode
        self.offset = 0
        self.appends = "O_APPEND" in flags
        self.syncs = "O_SYNC" in flags
        self.syncs_data = "O_DSYNC" in flags


class Trace:
    """Turns lines into changes of a Disk, and yields after each: its kind, or "mark" when the client wrote a mark."""

    def __init__(self, lines, disk, data_path, marks_path):
        self.lines = lines
        self.disk = disk
        self.data_path = os.path.realpath(data_path)
        self.marks_path = os.path.realpath(marks_path)
        self.process_of = {}   # thread to process
        self.files = {}        # (process, descriptor) to Opened
        self.mark_files = set()

    # --- Lines to calls ------------------------------------------------------------------------------

    def find_threads(self):
        begun = {}
        for line in self.lines:
            thread, text = LINE.match(line).groups()
            if text.startswith(("clone", "<... clone")):
                text = begun.pop(thread, "") + text
                found = re.search(r"\) += (\d+)", text)
                if not found:
                    begun[thread] = text
                elif "CLONE_THREAD" in text:
                    self.process_of[found[1]] = thread
                elif "CLONE_FILES" in text:
                    raise Misunderstood("two processes share their descriptors")

    def process(self, thread):
        while thread in self.process_of:
            thread = self.process_of[thread]
        return thread

    def events(self):
        self.find_threads()
        under_way = {}
        for line in self.lines:
            thread, text = LINE.match(line).groups()
            if text.startswith("+++") or text.startswith("---"):
                call = under_way.pop(thread, None)
                if call and call.descriptor:
                    raise Misunderstood(f"{call.name} was interrupted by the end of its process")
                continue
            if text.startswith("<... "):
                call = under_way.pop(thread)
                call.text += text[text.index(">") + 1:]
            else:
                call = Call(self.process(thread), text.removesuffix(" <unfinished ...>"))
                yield from self.begin(call)
            if text.endswith(" <unfinished ...>"):
                call.text = call.text.removesuffix(" <unfinished ...>")
                under_way[thread] = call
                continue
            call.finish()
            if call.result is None:
                if call.descriptor:
                    raise Misunderstood(f"{call.name} was interrupted by the end of its process")
            elif call.result >= 0:
                yield from self.end(call)
                if call.name in NAMING + OPENING:
                    for other in under_way.values():
                        if other.name in OPENING and other.opened is None:
                            self.find_opened(other)
        for call in under_way.values():
            if call.descriptor:
                raise Misunderstood(f"{call.name} did not end")

    # --- Paths ---------------------------------------------------------------------------------------

    def is_inside(self, path):
        return path == self.data_path or path.startswith(self.data_path + "/")

    def locate(self, call, path, directory_argument=None):
        """Return the directory's inode and the name in it, or None if the path is not in the data directory."""
        path = path.decode()
        if not path.startswith("/"):
            descriptor = DESCRIPTOR.match(directory_argument) if directory_argument else None
            if descriptor:
                opened = self.files.get((call.process, int(descriptor[1])))
                if opened is None:
                    return None
                return self.walk(opened.inode, path)
            path = os.path.join(os.getcwd(), path)
        path = os.path.normpath(path)
        if not self.is_inside(path):
            return None
        return self.walk(ROOT, os.path.relpath(path, self.data_path))

    def walk(self, directory, path):
        *parents, name = path.split("/")
        for parent in parents:
            directory = self.disk.look_up(directory, parent)
            if directory is None:
                raise Misunderstood(f"a call succeeded in {path}, whose directory does not exist")
        return directory, name

    def found(self, place):
        if place[1] == ".":
            return place[0]
        return self.disk.look_up(*place)

    # --- The beginning of a call ---------------------------------------------------------------------

    def begin(self, call):
        name = call.name
        if name in ON_DESCRIPTOR:
            found = DESCRIPTOR.match(call.arguments[0])
            if not found:
                return
            call.descriptor = (call.process, int(found[1]))
            call.opened = self.files.get(call.descriptor)
            if name == "close":
                # At the beginning: at the end another thread may have the number already.
                self.files.pop(call.descriptor, None)
                self.mark_files.discard(call.descriptor)
                call.descriptor = None
            elif call.opened is None:
                path = decode(found[2]).decode(errors="replace") if found[2] else ""
                if self.is_inside(path.removesuffix(" (deleted)")) and call.descriptor not in self.mark_files:
                    raise Misunderstood(f"{name} on a descriptor of {path} whose opening was not seen")
            elif name in SYNCING:
                call.begun_sync = self.disk.begin_sync(call.opened.inode, name == "fdatasync")
                yield "begin of sync"
            elif name.startswith("dup"):
                raise Misunderstood("a descriptor of the data directory is duplicated")
            if call.opened is None and call.descriptor not in self.mark_files:
                call.descriptor = None
        elif name in UNKNOWN:
            is_harmless = name == "mmap" and ("MAP_SHARED" not in call.text or "PROT_WRITE" not in call.text)
            if not is_harmless and any(self.is_inside(decode(path).decode(errors="replace"))
                                       for path in re.findall(r"<((?:\\x[0-9a-f]{2})+)>", call.text)):
                raise Misunderstood(f"{name} on a file of the data directory is not modelled")
        elif name in OPENING:
            self.find_opened(call)
        elif name in ("chdir", "fchdir"):
            raise Misunderstood("a process changes its directory")

    # --- The end of a call that succeeded ------------------------------------------------------------

    def end(self, call):
        if call.name in SYNCING:
            if call.begun_sync:
                yield "before end of sync"
                self.disk.end_sync(call.begun_sync)
                yield "sync"
        elif call.descriptor in self.mark_files and call.name == "write":
            yield "mark"
        elif call.descriptor:
            yield from self.end_of_descriptor_call(call)
        elif call.name in OPENING:
            yield from self.end_of_open(call)
        elif call.name in NAMING:
            yield from self.end_of_name_call(call)

    def end_of_descriptor_call(self, call):
        opened = call.opened
        if call.name == "lseek":
            opened.offset = call.result
        elif call.name == "ftruncate":
            self.disk.truncate(opened.inode, int(call.arguments[1].split(")")[0]))
            yield "truncate"
        else:
            yield from self.end_of_write(call, opened)

    def end_of_write(self, call, opened):
        data = b"".join(call.strings())[:call.result]
        if len(data) != call.result:
            raise Misunderstood(f"{call.name} wrote {call.result} bytes, of which {len(data)} were recorded")
        if call.name in ("pwrite64", "pwritev"):
            offset = int(call.arguments[-1].split(")")[0])
        elif call.name == "pwritev2":
            raise Misunderstood("pwritev2 is not modelled")
        else:
            offset = self.disk.inodes[opened.inode].size if opened.appends else opened.offset
            opened.offset = offset + len(data)
        if not data:
            return
        self.disk.write(opened.inode, offset, data)
        yield "write"
        if opened.syncs or opened.syncs_data:
            begun = self.disk.begin_sync(opened.inode, not opened.syncs)
            yield "before end of sync"
            self.disk.end_sync(begun)
            yield "sync"

    def place_of_open(self, call):
        has_directory = call.name in ("openat", "openat2")
        return self.locate(call, call.strings()[0], call.arguments[0] if has_directory else None)

    def find_opened(self, call):
        """Note what the call would open now: at its end another thread may have renamed or removed it."""
        try:
            place = self.place_of_open(call)
            call.opened = self.found(place) if place else None
        except Misunderstood:
            pass  # the directory does not exist yet

    def end_of_open(self, call):
        path = call.strings()[0]
        flags = "O_CREAT|O_TRUNC" if call.name == "creat" else call.text[call.text.rindex('"'):]
        descriptor = (call.process, call.result)
        self.files.pop(descriptor, None)
        self.mark_files.discard(descriptor)
        if os.path.realpath(path.decode(errors="replace")) == self.marks_path:
            self.mark_files.add(descriptor)
            return
        try:
            place = self.place_of_open(call)
            inode = self.found(place) if place else None
        except Misunderstood:
            if call.opened is None:
                raise
            place, inode = True, call.opened
        if place is None:
            return
        if inode is None and "O_CREAT" not in flags:
            inode = call.opened
            if inode is None:
                return  # it is still being created; that it is only read is checked with each call
        elif inode is None:
            inode = self.disk.create(*place)
            yield "create"
        elif "O_TRUNC" in flags and self.disk.inodes[inode].size > 0:
            self.disk.truncate(inode, 0)
            yield "truncate"
        self.files[descriptor] = Opened(inode, flags)

    def end_of_name_call(self, call):
        name = call.name
        arguments = call.arguments
        has_directory = name.endswith(("at", "at2"))
        places = []
        for number, path in enumerate(call.strings()):
            places.append(self.locate(call, path, arguments[2 * number] if has_directory else None))
        if all(place is None for place in places):
            return
        if None in places or "RENAME_EXCHANGE" in call.text or name.startswith("symlink"):
            raise Misunderstood(f"{name} like this is not modelled: {call.strings()}")
        if name.startswith("mkdir"):
            self.disk.create(*places[0], is_directory=True)
        elif name.startswith(("unlink", "rmdir")):
            self.disk.remove(*places[0])
        elif name.startswith("rename"):
            self.disk.rename(*places[0], *places[1])
        elif name.startswith("link"):
            self.disk.link(self.found(places[0]), *places[1])
        elif name == "truncate":
            self.disk.truncate(self.found(places[0]), int(arguments[1].split(")")[0]))
        yield name.removesuffix("at")
