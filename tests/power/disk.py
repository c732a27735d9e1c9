"""A model of a disk that loses power.

The model is that of a journaling filesystem like ext4 (data=ordered) and XFS with their defaults:

- Data that is written and not synced may be lost. Each page of 4 KiB is written back by itself, at any time and in any
  order. The page that is under way when power fails is torn: some of its sectors are new, the others old.
- Metadata operations (create, mkdir, link, rename, unlink, rmdir, truncate) are journaled in their order. After a loss
  of power a prefix of them is there. A file's size grows with the pages that are written back, which need the file's
  creation and earlier truncations in the journal. A hole reads as zeros.
- fsync of a file or directory makes its data durable, and forces the journal up to the last change of its inode: its
  creation, write, truncation, link or rename, or a change in the directory. Earlier operations elsewhere are durable by
  that, later ones are not: neither filesystem commits more than the inode needs.
- fdatasync does the same, but a write that does not make the file longer does not count as a change.
- A write to a file that was opened with O_SYNC is a write followed by fsync, with O_DSYNC by fdatasync.
- A sync covers what was done before it began, and nothing is certain before it has ended.

A rename does not write the file's data back. (XFS does not; ext4 does if the rename replaces a file.) The periodic
commit of the journal (ext4: 5 s, XFS: 30 s) is one of the random outcomes, but nothing relies on it. Disks that lie
about a flush, and bits that rot, are beyond the model.
"""
import collections

PAGE = 4096
SECTOR = 512
ROOT = 0

Write = collections.namedtuple("Write", "offset data operations")
Truncate = collections.namedtuple("Truncate", "size operation")


class Misunderstood(Exception):
    """The recorded calls do not fit the model's state."""


def apply_write(content, offset, data):
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset:offset + len(data)] = data


def apply_truncate(content, size):
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


class Inode:
    def __init__(self, is_directory, change):
        self.is_directory = is_directory
        self.durable = bytearray()  # the content at the last sync
        self.pending = []           # what was done to the content since
        self.synced = 0             # how many entries of pending were removed by syncs
        self.size = 0
        self.change = change        # metadata operations up to here must be durable for fsync
        self.data_change = change   # and for fdatasync


class Disk:
    def __init__(self):
        self.inodes = [Inode(True, 0)]
        self.operations = []
        self.committed = 0                  # of operations
        self.names = {ROOT: {}}             # directory to name to inode, as the processes see it
        self.durable_names = {ROOT: {}}     # as the first self.committed operations left it
        self.unsynced = set()               # inodes with data that is not durable

    # --- Metadata ------------------------------------------------------------------------------------

    def _journal(self, operation, *changed):
        self.operations.append(operation)
        self._apply(self.names, operation)
        for inode in changed:
            self.inodes[inode].change = self.inodes[inode].data_change = len(self.operations)

    @staticmethod
    def _apply(names, operation):
        kind, *arguments = operation
        if kind == "add":
            directory, name, inode, is_directory = arguments
            names[directory][name] = inode
            if is_directory:
                names[inode] = {}
        elif kind == "remove":
            directory, name = arguments
            del names[directory][name]
        elif kind == "move":
            directory, name, to_directory, to_name = arguments
            names[to_directory][to_name] = names[directory].pop(name)

    def look_up(self, directory, name):
        """Return the inode, or None."""
        return self.names[directory].get(name)

    def create(self, directory, name, is_directory=False):
        inode = len(self.inodes)
        self.inodes.append(Inode(is_directory, 0))
        self._journal(("add", directory, name, inode, is_directory), directory, inode)
        return inode

    def link(self, inode, directory, name):
        self._journal(("add", directory, name, inode, False), directory, inode)

    def remove(self, directory, name):
        self._journal(("remove", directory, name), directory, self.names[directory][name])

    def rename(self, directory, name, to_directory, to_name):
        self._journal(("move", directory, name, to_directory, to_name), directory, to_directory,
                      self.names[directory][name])

    def truncate(self, inode, size):
        self.inodes[inode].pending.append(Truncate(size, len(self.operations)))
        self.inodes[inode].size = size
        self._journal(("truncate",), inode)

    # --- Data ----------------------------------------------------------------------------------------

    def write(self, inode, offset, data):
        file = self.inodes[inode]
        file.pending.append(Write(offset, data, len(self.operations)))
        self.unsynced.add(inode)
        file.change = len(self.operations)
        if offset + len(data) > file.size:
            file.size = offset + len(data)
            file.data_change = file.change

    def begin_sync(self, inode, is_data_only=False):
        """Return what the sync will have made durable when it ends."""
        file = self.inodes[inode]
        return inode, file.synced + len(file.pending), file.data_change if is_data_only else file.change

    def end_sync(self, begun):
        inode, covered, change = begun
        file = self.inodes[inode]
        count = max(0, covered - file.synced)
        for entry in file.pending[:count]:
            if type(entry) is Write:
                apply_write(file.durable, entry.offset, entry.data)
            else:
                apply_truncate(file.durable, entry.size)
        del file.pending[:count]
        file.synced += count
        if not file.pending:
            self.unsynced.discard(inode)
        while self.committed < change:
            self._apply(self.durable_names, self.operations[self.committed])
            self.committed += 1

    def is_delicate(self):
        """Return whether a name is gone or replaced, maybe, while data that may replace it is not durable."""
        return bool(self.unsynced) and any(kind in ("remove", "move") for kind, *_ in self.operations[self.committed:])

    def directories_with_early_removals(self, suffix):
        """Return the paths of directories from which a file was removed after data for another that is not durable."""
        found = set()
        for path, directory in self._directories():
            for inode in self.unsynced.intersection(self.names[directory].values()):
                since = self.inodes[inode].pending[0]
                later = self.operations[since.operations if type(since) is Write else since.operation:]
                if any(operation[:2] == ("remove", directory) and operation[2].endswith(suffix) for operation in later):
                    found.add(path)
        return found

    def _directories(self):
        waiting = [("", ROOT)]
        while waiting:
            path, directory = waiting.pop()
            yield path, directory
            waiting += [(f"{path}/{name}".lstrip("/"), inode) for name, inode in self.names[directory].items()
                        if self.inodes[inode].is_directory]

    # --- After a loss of power -----------------------------------------------------------------------

    def image_without_unsynced(self):
        """Return the tree if all is lost that may be: a map of path to content, of a directory to None."""
        return self._image(self.durable_names, self.committed, None)

    def image_with_names(self):
        """Return the tree if all metadata is there, and no data that was not synced."""
        return self._image(self.names, len(self.operations), None)

    def image_of_all(self):
        """Return the tree as the processes see it."""
        return self._image(self.names, len(self.operations), keep_all)

    def random_image(self, rng):
        """Return the tree with a random part of what may be lost."""
        upper = len(self.operations)
        count = rng.choice((self.committed, upper, rng.randint(self.committed, upper)))
        names = {directory: dict(entries) for directory, entries in self.durable_names.items()}
        for operation in self.operations[self.committed:count]:
            self._apply(names, operation)
        return self._image(names, count, RandomPages(rng))

    def _image(self, names, count, choose):
        image = {}
        waiting = [("", ROOT)]
        while waiting:
            prefix, directory = waiting.pop()
            for name, inode in names[directory].items():
                path = prefix + name
                if self.inodes[inode].is_directory:
                    image[path] = None
                    waiting.append((path + "/", inode))
                else:
                    image[path] = bytes(self._content(self.inodes[inode], count, choose))
        return image

    @staticmethod
    def _content(file, count, choose):
        """Return a file's content with the first so many metadata operations, and the writes that are chosen.

        choose(number of writes) tells of a page how many of its writes it has, and how many bytes at its beginning the
        last of these has changed.
        """
        content = bytearray(file.durable)
        section = []  # of writes between two truncations
        for entry in file.pending:
            if type(entry) is Write:
                section.append(entry)
            elif entry.operation < count:
                write_pages(content, section, choose)
                section = []
                apply_truncate(content, entry.size)
            else:
                break
        write_pages(content, section, choose)
        return content


def write_pages(content, writes, choose):
    if choose is None:
        return
    pages = collections.defaultdict(list)
    for write in writes:
        for page in range(write.offset // PAGE, (write.offset + len(write.data) - 1) // PAGE + 1):
            pages[page].append(write)
    for page, page_writes in sorted(pages.items()):
        kept, torn_at = choose(len(page_writes))
        for number, write in enumerate(page_writes[:kept], 1):
            end = page * PAGE + (torn_at if number == kept else PAGE)
            begin = max(write.offset, page * PAGE)
            part = write.data[begin - write.offset:max(0, end - write.offset)]
            if part:
                apply_write(content, begin, part)


def keep_all(writes):
    return writes, PAGE


class RandomPages:
    """Keeps some pages, and tears one."""

    def __init__(self, rng):
        self.rng = rng
        self.share = rng.choice((0.1, 0.5, 0.9))
        self.may_tear = True

    def __call__(self, writes):
        if self.rng.random() > self.share:
            return 0, PAGE
        kept = self.rng.choice((writes, self.rng.randint(1, writes)))
        if self.may_tear and self.rng.random() < 0.5:
            self.may_tear = False
            return kept, self.rng.randrange(0, PAGE, SECTOR)
        return kept, PAGE
