package dev.tidemark.ffm.lab;

import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;

/** Memory of kinds that only tests need. */
public final class LabMemory implements AutoCloseable {
  private static final int PROT_NONE = 0;
  private static final int PROT_READ = 1;
  private static final int PROT_WRITE = 2;
  private static final int MAP_SHARED = 1;
  private static final int MAP_PRIVATE = 2;
  private static final int MAP_ANONYMOUS = 0x20;
  private static final int MAP_NORESERVE = 0x4000;
  private static final int MAP_POPULATE = 0x8000;
  private static final int MAP_HUGETLB = 0x40000;

  /** Of a huge page. */
  public static final long HUGE = 2L << 20;

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
    return new LabMemory(
        (bytes + HUGE - 1) & -HUGE,
        PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_HUGETLB | MAP_POPULATE);
  }

  /** All huge pages that are left, so that nobody else gets one. */
  public static LabMemory allHuge() {
    try {
      Path left = Path.of("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
      return huge(Long.parseLong(Files.readString(left).strip()) * HUGE);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Shared memory in huge pages, each of which may or may not be had when it is touched. */
  public static LabMemory unreservedHuge(long pages) {
    return new LabMemory(
        pages * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_HUGETLB | MAP_NORESERVE);
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
