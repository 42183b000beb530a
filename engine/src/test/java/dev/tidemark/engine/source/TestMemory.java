package dev.tidemark.engine.source;

import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/**
 * Memory of some kind for a test, at a multiple of 2 MiB, and what can be done to it other than
 * through its mapping. Every page holds its number plus one.
 */
final class TestMemory implements AutoCloseable {
  static final long PAGES = 2048;
  private static final long BYTES = PAGES * Pages.SIZE;
  private static final long ALIGNMENT = 2 << 20;

  private static final int PROT_RW = 3;
  private static final int MAP_SHARED = 1;
  private static final int MAP_PRIVATE = 2;
  private static final int MAP_FIXED = 0x10;
  private static final int MAP_ANONYMOUS = 0x20;
  private static final int MAP_NORESERVE = 0x4000;
  private static final int MAP_HUGETLB = 0x40000;
  private static final int MFD_CLOEXEC = 1;
  private static final int MFD_HUGETLB = 4;
  private static final int MADV_DONTNEED = 4;
  private static final int MADV_REMOVE = 9;
  private static final int MADV_HUGEPAGE = 14;
  private static final int MADV_NOHUGEPAGE = 15;

  /** What it is made of. */
  enum Kind {
    ANONYMOUS("anonymous"),
    THP("anonymous, THP"),
    MEMFD("shared anonymous, memfd"),
    PRIVATE_FILE("private file"),
    FILE("shared file"),
    TMPFS("shared file, tmpfs"),
    HUGETLB("hugetlb, shared"),
    PRIVATE_HUGETLB("hugetlb, private");

    final String title;

    Kind(String title) {
      this.title = title;
    }

    boolean isHugetlb() {
      return this == HUGETLB || this == PRIVATE_HUGETLB;
    }

    boolean hasFile() {
      return this != ANONYMOUS && this != THP && this != PRIVATE_HUGETLB;
    }
  }

  final Kind kind;
  final MemorySegment segment;
  private final long reserved;
  private Fd fd;

  TestMemory(Kind kind) throws IOException {
    this.kind = kind;
    reserved =
        Libc.check(
            Libc.mmap(0, BYTES + ALIGNMENT, 0, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
            "reserve");
    long at = reserved + ALIGNMENT - 1 & -ALIGNMENT;
    try {
      switch (kind) {
        case ANONYMOUS -> map(at, MAP_PRIVATE | MAP_ANONYMOUS);
        case THP -> map(at, MAP_PRIVATE | MAP_ANONYMOUS);
        case PRIVATE_HUGETLB -> map(at, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB);
        case MEMFD -> {
          memfd(MFD_CLOEXEC);
          map(at, MAP_SHARED);
        }
        case HUGETLB -> {
          memfd(MFD_CLOEXEC | MFD_HUGETLB);
          map(at, MAP_SHARED);
        }
        case FILE, TMPFS, PRIVATE_FILE -> {
          file(kind == Kind.TMPFS ? Path.of("/dev/shm") : Path.of("target"));
          map(at, kind == Kind.PRIVATE_FILE ? MAP_PRIVATE : MAP_SHARED);
        }
      }
      segment = Libc.memory(at, BYTES);
      if (!kind.isHugetlb()) {
        advise(0, PAGES, kind == Kind.THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
      }
      // A private mapping reads the file's own pages until it writes: those are its content.
      for (long page = 0; page < PAGES; page++) {
        if (kind == Kind.PRIVATE_FILE) {
          pwrite(page, 1, page + 1);
        } else {
          segment.set(ValueLayout.JAVA_LONG, page * Pages.SIZE, page + 1);
        }
      }
    } catch (Throwable e) {
      close();
      throw e;
    }
  }

  /** Whether all of it is mapped by huge pages of its own. */
  boolean isHuge() throws IOException {
    String range = Long.toHexString(segment.address()) + "-";
    return Files.readAllLines(Path.of("/proc/self/smaps")).stream()
        .dropWhile(line -> !line.startsWith(range))
        .filter(line -> line.startsWith("AnonHugePages:"))
        .findFirst()
        .filter(line -> Long.parseLong(line.replaceAll("\\D", "")) << 10 == BYTES)
        .isPresent();
  }

  private void map(long at, int flags) {
    int number = fd == null ? -1 : fd.acquire();
    try {
      Libc.check(Libc.mmap(at, BYTES, PROT_RW, flags | MAP_FIXED, number, 0), "mmap " + kind);
    } finally {
      if (fd != null) {
        fd.release();
      }
    }
  }

  private void memfd(int flags) {
    fd = Fd.own((int) Libc.check(Libc.memfdCreate("kind", flags), "memfd_create"), "memfd");
    int number = fd.acquire();
    Libc.check(Libc.ftruncate(number, BYTES), "ftruncate");
    fd.release();
  }

  private void file(Path folder) throws IOException {
    Path path = Files.createTempFile(Files.createDirectories(folder), "memory", ".bin");
    try {
      fd = Fd.open(path.toString(), Fd.O_RDWR);
    } finally {
      Files.delete(path);
    }
    int number = fd.acquire();
    Libc.check(Libc.ftruncate(number, BYTES), "ftruncate");
    fd.release();
  }

  private FileChannel channel() throws IOException {
    int number = fd.acquire();
    fd.release();
    return FileChannel.open(
        Path.of("/proc/self/fd/" + number), StandardOpenOption.READ, StandardOpenOption.WRITE);
  }

  /** Stores a word in each page, through the mapping. */
  void store(long first, long count, long word) {
    for (long page = first; page < first + count; page++) {
      segment.set(ValueLayout.JAVA_LONG, page * Pages.SIZE + 8, word);
    }
  }

  /** Has a system call write pages of the mapping: it reads a file into them. */
  void readInto(long first, long count) throws IOException {
    try (FileChannel zeros = FileChannel.open(Path.of("/dev/zero"), StandardOpenOption.READ)) {
      ByteBuffer into = segment.asSlice(first * Pages.SIZE, count * Pages.SIZE).asByteBuffer();
      while (into.hasRemaining()) {
        zeros.read(into);
      }
    }
  }

  /** Stores a word in each page, through a second mapping of the file. */
  void storeElsewhere(long first, long count, long word) {
    int number = fd.acquire();
    long at;
    try {
      at = Libc.check(Libc.mmap(0, BYTES, PROT_RW, MAP_SHARED, number, 0), "mmap again");
    } finally {
      fd.release();
    }
    MemorySegment other = Libc.memory(at, BYTES);
    for (long page = first; page < first + count; page++) {
      other.set(ValueLayout.JAVA_LONG, page * Pages.SIZE + 8, word);
    }
    Libc.check(Libc.munmap(at, BYTES), "munmap");
  }

  /** Writes a word to the file where each page is. */
  void pwrite(long first, long count, long word) throws IOException {
    ByteBuffer bytes = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
    try (FileChannel file = channel()) {
      for (long page = first; page < first + count; page++) {
        bytes.clear().putLong(word).flip();
        file.write(bytes, page * Pages.SIZE);
      }
    }
  }

  void discard(long first, long count) {
    advise(first, count, MADV_DONTNEED);
  }

  void remove(long first, long count) {
    advise(first, count, MADV_REMOVE);
  }

  private void advise(long first, long count, int advice) {
    Libc.check(
        Libc.madvise(segment.address() + first * Pages.SIZE, count * Pages.SIZE, advice),
        "madvise " + advice);
  }

  /** Punches a hole into the file. */
  void punch(long first, long count) throws IOException, InterruptedException {
    int number = fd.acquire();
    fd.release();
    Process process =
        new ProcessBuilder(
                "fallocate",
                "--punch-hole",
                "--offset",
                Long.toString(first * Pages.SIZE),
                "--length",
                Long.toString(count * Pages.SIZE),
                "/proc/" + ProcessHandle.current().pid() + "/fd/" + number)
            .redirectErrorStream(true)
            .start();
    String said = new String(process.getInputStream().readAllBytes());
    if (process.waitFor() != 0) {
      throw new IOException(said);
    }
  }

  /** Cuts the file off before a page and lengthens it again: zeros from there on. */
  void truncate(long first) {
    int number = fd.acquire();
    try {
      Libc.check(Libc.ftruncate(number, first * Pages.SIZE), "ftruncate");
      Libc.check(Libc.ftruncate(number, BYTES), "ftruncate");
    } finally {
      fd.release();
    }
  }

  @Override
  public void close() {
    Libc.check(Libc.munmap(reserved, BYTES + ALIGNMENT), "munmap");
    if (fd != null) {
      fd.close();
    }
  }
}
