package dev.tidemark.ffm.lab;

import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.MemorySegment;

/** Memory of kinds that only tests need. */
public final class LabMemory implements AutoCloseable {
  private static final int PROT_NONE = 0;
  private static final int PROT_READ = 1;
  private static final int PROT_WRITE = 2;
  private static final int MAP_SHARED = 1;
  private static final int MAP_PRIVATE = 2;
  private static final int MAP_ANONYMOUS = 0x20;
  private static final int MAP_POPULATE = 0x8000;
  private static final int MAP_HUGETLB = 0x40000;

  private final MemorySegment segment;

  private LabMemory(long bytes, int protection, int flags) {
    long address =
        Libc.check(
            Libc.mmap(0, bytes, protection, flags | MAP_ANONYMOUS, -1, 0),
            "mmap(" + bytes + " bytes, flags " + flags + ")");
    segment = Libc.memory(address, bytes);
  }

  /** Shared memory, in whole pages. */
  public static LabMemory shared(long bytes) {
    return new LabMemory(Pages.roundUp(bytes), PROT_READ | PROT_WRITE, MAP_SHARED);
  }

  /** Shared memory in huge pages, which the lab has 160 MiB of. */
  public static LabMemory huge(long bytes) {
    long huge = 2L << 20;
    return new LabMemory(
        (bytes + huge - 1) & -huge,
        PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_HUGETLB | MAP_POPULATE);
  }

  /** Memory that nobody can write. */
  public static LabMemory readOnly(long bytes) {
    return new LabMemory(Pages.roundUp(bytes), PROT_READ, MAP_PRIVATE);
  }

  /** Lets the memory be written, or not. */
  public void protect(boolean writable) {
    Libc.check(
        Libc.mprotect(
            segment.address(), segment.byteSize(), writable ? PROT_READ | PROT_WRITE : PROT_READ),
        "mprotect");
  }

  /**
   * Takes memory away from an offset on, a multiple of the page. Its addresses stay reserved, so
   * that nobody else is hit by what reaches for it.
   */
  public void forbidFrom(long offset) {
    Libc.check(
        Libc.mprotect(segment.address() + offset, segment.byteSize() - offset, PROT_NONE),
        "mprotect");
  }

  public MemorySegment segment() {
    return segment;
  }

  public long address() {
    return segment.address();
  }

  @Override
  public void close() {
    Libc.check(Libc.munmap(segment.address(), segment.byteSize()), "munmap");
  }
}
