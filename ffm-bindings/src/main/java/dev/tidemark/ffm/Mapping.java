package dev.tidemark.ffm;

import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * Memory from {@code mmap(2)}, unmapped by {@link #close()}.
 *
 * <p>Memory-unsafe: a wrong address, length or lifetime here corrupts memory or ends the JVM. The
 * segment has no arena: as with any mapping, it must not be used after close. That keeps a call in
 * flight from costing a reference count, and a long session from costing arenas.
 *
 * <p>Threading: any thread; close once nobody uses the memory.
 */
public final class Mapping implements AutoCloseable {
  private static final int PROT_NONE = 0;
  private static final int PROT_READ = 1;
  private static final int PROT_WRITE = 2;
  private static final int MAP_SHARED = 1;
  private static final int MAP_PRIVATE = 2;
  private static final int MAP_ANONYMOUS = 0x20;
  private static final int MAP_NORESERVE = 0x4000;
  private static final int MAP_POPULATE = 0x8000;
  private static final int MADV_POPULATE_WRITE = 23;

  private final long start;
  private final long length;
  private final MemorySegment segment;
  private final AtomicBoolean closed = new AtomicBoolean();

  private Mapping(long start, long length, MemorySegment segment) {
    this.start = start;
    this.length = length;
    this.segment = segment;
  }

  private static long map(long bytes, int protection, int flags, int fd, long offset, String what) {
    return Libc.check(
        Libc.mmap(0, bytes, protection, flags, fd, offset),
        "mmap(" + bytes + " bytes, " + what + ")");
  }

  private static void checkLength(long bytes) {
    if (bytes <= 0) {
      throw new IllegalArgumentException("a mapping of " + bytes + " bytes");
    }
  }

  /**
   * Private anonymous memory, zero, allocated page by page as it is touched.
   *
   * @param bytes more than 0; rounded up to whole pages
   * @throws LinuxException if there is not enough
   */
  public static Mapping anonymous(long bytes) {
    checkLength(bytes);
    long length = Pages.roundUp(bytes);
    long start =
        map(
            length,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
            -1,
            0,
            "anonymous");
    return new Mapping(start, length, Libc.memory(start, length));
  }

  /**
   * Private anonymous memory for the kernel to write: zero, touched in advance, and placed so that
   * its last byte ends a page behind which lies one that nobody can write. A kernel that writes
   * past the end (linux-6.12 {@code iova_bitmap_set} does for large IOPTEs) is stopped there.
   *
   * @param bytes more than 0, a multiple of 64, so that the segment starts at a multiple of 64
   * @throws LinuxException if there is not enough memory
   */
  public static Mapping guarded(long bytes) {
    checkLength(bytes);
    if (bytes % 64 != 0) {
      throw new IllegalArgumentException(bytes + " bytes are not a multiple of 64");
    }
    long usable = Pages.roundUp(bytes);
    long length = usable + Pages.SIZE;
    long start =
        map(
            length,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
            -1,
            0,
            "guarded");
    int result = Libc.mprotect(start + usable, Pages.SIZE, PROT_NONE);
    if (result < 0) {
      Libc.munmap(start, length);
      throw new LinuxException("mprotect(guard page)", -result);
    }
    return new Mapping(start, length, Libc.memory(start + usable - bytes, bytes));
  }

  /**
   * A file's bytes, shared with everybody who maps them. Memory past the file's end must not be
   * touched, also where the file was shrunk later: the JVM or the process ends then ({@code
   * SIGBUS}).
   *
   * @param fd the file, such as a {@link Memfd}'s or a vCPU's; not needed once mapped
   * @param offset bytes into the file, a multiple of the page
   * @param bytes more than 0
   * @throws LinuxException if the kernel refuses
   */
  public static Mapping shared(Fd fd, long offset, long bytes) {
    checkLength(bytes);
    long length = Pages.roundUp(bytes);
    int number = fd.acquire();
    try {
      long start = map(length, PROT_READ | PROT_WRITE, MAP_SHARED, number, offset, fd.label());
      return new Mapping(start, length, Libc.memory(start, bytes));
    } finally {
      fd.release();
    }
  }

  /**
   * The memory.
   *
   * @throws ClosedException after close
   */
  public MemorySegment segment() {
    if (closed.get()) {
      throw new ClosedException("mapping");
    }
    return segment;
  }

  /**
   * Allocates all of the memory now ({@code MADV_POPULATE_WRITE}, Linux 5.14), as its first writes
   * would page by page: for a destination that has time before its guest arrives. Memory that stays
   * zero is allocated too.
   *
   * <p>Cost: 0.3 s a GiB, and so much less in the migration.
   *
   * @return whether all of it is there; if not (an older kernel, or not enough memory), the rest is
   *     allocated as it is written
   * @throws ClosedException if it is closed
   */
  public boolean populate() {
    return Libc.madvise(segment().address(), segment.byteSize(), MADV_POPULATE_WRITE) >= 0;
  }

  /** Unmaps the memory, the first time it is called. */
  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      Libc.check(Libc.munmap(start, length), "munmap");
    }
  }
}
