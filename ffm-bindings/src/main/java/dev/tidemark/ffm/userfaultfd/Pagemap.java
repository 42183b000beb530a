package dev.tidemark.ffm.userfaultfd;

import static dev.tidemark.ffm.userfaultfd.PagemapUapi.PAGEMAP_SCAN;
import static dev.tidemark.ffm.userfaultfd.PagemapUapi.PAGE_IS_WRITTEN;
import static dev.tidemark.ffm.userfaultfd.PagemapUapi.PAGE_REGION_LAYOUT;
import static dev.tidemark.ffm.userfaultfd.PagemapUapi.PM_SCAN_ARG_LAYOUT;
import static dev.tidemark.ffm.userfaultfd.PagemapUapi.PM_SCAN_CHECK_WPASYNC;
import static dev.tidemark.ffm.userfaultfd.PagemapUapi.PM_SCAN_WP_MATCHING;
import static java.lang.foreign.MemoryLayout.PathElement.groupElement;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Ioctl;
import dev.tidemark.ffm.LinuxException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Locale;
import java.util.Objects;
import java.util.Optional;

/**
 * An owner of {@code /proc/self/pagemap} that scans this process's page tables with {@code
 * PAGEMAP_SCAN}.
 *
 * <p>A scan may end before the end of its range, because the regions did not fit, or only say so
 * (the kernel leaves {@code walk_end} behind after more than 512 regions, fs/proc/task_mmu.c). Both
 * are answered by going on from there:
 *
 * <pre>{@code
 * for (long at = start; at < end; at = pagemap.walkEnd()) {
 *   int regions = pagemap.scan(Pagemap.Query.TAKE_WRITTEN, at, end);
 *   for (int i = 0; i < regions; i++) {
 *     mark(pagemap.start(i), pagemap.end(i));
 *   }
 * }
 * }</pre>
 *
 * <p>Footprint: 24 bytes off-heap a region. Threading: one thread at a time. A scan allocates
 * nothing; it walks the page tables and takes mmap_lock for reading.
 */
public final class Pagemap implements AutoCloseable {
  private static final String PATH = "/proc/self/pagemap";
  private static final long ARG_BYTES = PM_SCAN_ARG_LAYOUT.byteSize();
  private static final long REGION_BYTES = PAGE_REGION_LAYOUT.byteSize();

  private static final long ARG$size = argument("size");
  private static final long ARG$flags = argument("flags");
  private static final long ARG$start = argument("start");
  private static final long ARG$end = argument("end");
  private static final long ARG$walk_end = argument("walk_end");
  private static final long ARG$vec = argument("vec");
  private static final long ARG$vec_len = argument("vec_len");
  private static final long ARG$max_pages = argument("max_pages");
  private static final long ARG$category_inverted = argument("category_inverted");
  private static final long ARG$category_mask = argument("category_mask");
  private static final long ARG$category_anyof_mask = argument("category_anyof_mask");
  private static final long ARG$return_mask = argument("return_mask");
  private static final long REGION$start = PAGE_REGION_LAYOUT.byteOffset(groupElement("start"));
  private static final long REGION$end = PAGE_REGION_LAYOUT.byteOffset(groupElement("end"));
  private static final long REGION$categories =
      PAGE_REGION_LAYOUT.byteOffset(groupElement("categories"));

  private final Fd fd;
  private final int capacity;

  /** The argument and, behind it, the regions: so that a call in flight keeps both alive. */
  private final MemorySegment memory;

  private int regions;

  /**
   * What to look for. A page matches if, after {@code inverted} categories were turned around, it
   * has all of {@code mask} and, unless that is 0, one of {@code anyOf}. Neighbours whose {@code
   * returned} categories are equal come as one region.
   *
   * @param flags {@code PM_SCAN_} bits
   * @param inverted {@code PAGE_IS_} bits
   * @param mask {@code PAGE_IS_} bits
   * @param anyOf {@code PAGE_IS_} bits
   * @param returned {@code PAGE_IS_} bits
   * @param maxPages stop after so many pages, 0 for no limit
   */
  public record Query(
      long flags, long inverted, long mask, long anyOf, long returned, long maxPages) {
    /**
     * Takes what was written: reports exactly the pages that it protects again, in one step. Memory
     * that is not registered for asynchronous write protection is an error, {@code EPERM}.
     */
    public static final Query TAKE_WRITTEN =
        new Query(
            PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC, 0, PAGE_IS_WRITTEN, 0, PAGE_IS_WRITTEN, 0);

    /** As {@link #TAKE_WRITTEN}, and protects nothing: the next scan reports the pages again. */
    public static final Query READ_WRITTEN =
        new Query(PM_SCAN_CHECK_WPASYNC, 0, PAGE_IS_WRITTEN, 0, PAGE_IS_WRITTEN, 0);
  }

  private Pagemap(MemorySegment memory, Fd fd, int capacity) {
    this.memory = memory;
    this.fd = fd;
    this.capacity = capacity;
  }

  private static long argument(String field) {
    return PM_SCAN_ARG_LAYOUT.byteOffset(groupElement(field));
  }

  /**
   * Why this host cannot scan.
   *
   * @return one line that says what would enable it, or empty
   */
  public static Optional<String> missing() {
    try (Pagemap pagemap = open(1)) {
      pagemap.scan(new Query(0, 0, PAGE_IS_WRITTEN, 0, PAGE_IS_WRITTEN, 0), 0, 0);
      return Optional.empty();
    } catch (LinuxException e) {
      return Optional.of(
          switch (e.errno()) {
            case Errno.ENOTTY, Errno.EINVAL -> "no PAGEMAP_SCAN on this kernel: needs Linux 6.7";
            default -> e.getMessage();
          });
    }
  }

  /**
   * Opens it.
   *
   * @param capacity the most regions that one scan returns, 1 or more
   * @throws LinuxException if {@code /proc} is not there
   */
  public static Pagemap open(int capacity) {
    if (capacity < 1) {
      throw new IllegalArgumentException("room for " + capacity + " regions");
    }
    // The memory first: with the descriptor open nothing else can fail.
    MemorySegment memory = Arena.ofAuto().allocate(ARG_BYTES + capacity * REGION_BYTES, 8);
    return new Pagemap(memory, Fd.open(PATH, Fd.O_RDONLY), capacity);
  }

  /** The most regions that one scan returns. */
  public int capacity() {
    return capacity;
  }

  /**
   * Scans once; see {@link #walkEnd()} for how far it came.
   *
   * <p>Never repeat a failed scan that protects and take its answer for all: what the first one had
   * already protected is in no answer. Count the whole range as written.
   *
   * @param query what to look for
   * @param start address, a multiple of the page
   * @param end address, exclusive
   * @return how many regions there are, 0 to {@link #capacity()}
   * @throws LinuxException {@code EPERM} if asked to check and some of the range is not registered
   *     for asynchronous write protection; {@code EINVAL} if the kernel does not know a category
   * @throws ClosedException after close
   */
  public int scan(Query query, long start, long end) {
    regions = issue(query, start, end, memory.address() + ARG_BYTES, capacity);
    return regions;
  }

  /**
   * Protects whatever was written in a range, and forgets that it was: to begin with, after which
   * every page must be taken for written once.
   *
   * @param start address, a multiple of the page
   * @param end address, exclusive
   * @throws LinuxException {@code EPERM} if some of it is not registered
   * @throws ClosedException after close
   */
  public void protect(long start, long end) {
    for (long at = start; at < end; at = walkEnd()) {
      issue(Query.TAKE_WRITTEN, at, end, 0, 0);
    }
  }

  private int issue(Query query, long start, long end, long vector, long length) {
    memory.set(JAVA_LONG, ARG$size, ARG_BYTES);
    memory.set(JAVA_LONG, ARG$flags, query.flags);
    memory.set(JAVA_LONG, ARG$start, start);
    memory.set(JAVA_LONG, ARG$end, end);
    memory.set(JAVA_LONG, ARG$walk_end, 0);
    memory.set(JAVA_LONG, ARG$vec, vector);
    memory.set(JAVA_LONG, ARG$vec_len, length);
    memory.set(JAVA_LONG, ARG$max_pages, query.maxPages);
    memory.set(JAVA_LONG, ARG$category_inverted, query.inverted);
    memory.set(JAVA_LONG, ARG$category_mask, query.mask);
    memory.set(JAVA_LONG, ARG$category_anyof_mask, query.anyOf);
    memory.set(JAVA_LONG, ARG$return_mask, query.returned);
    regions = 0;
    // Not again on EINTR: only a fatal signal gives it, and a round may have protected by then.
    int result = Ioctl.tryCall(fd, PAGEMAP_SCAN, memory);
    if (result < 0) {
      String detail =
          String.format(Locale.ROOT, "0x%x to 0x%x: the whole range counts as written", start, end)
              + (result == -Errno.EPERM ? ", and is not all registered" : "");
      throw Ioctl.failure(fd, PAGEMAP_SCAN, -result, detail);
    }
    return result;
  }

  /** Where the last scan stopped: go on from here unless it is the end that was asked for. */
  public long walkEnd() {
    return memory.get(JAVA_LONG, ARG$walk_end);
  }

  /**
   * Where a region of the last scan starts.
   *
   * @param region index, 0 to what {@link #scan} returned, exclusive
   * @return address of its first byte
   */
  public long start(int region) {
    return field(region, REGION$start);
  }

  /**
   * Where a region of the last scan ends.
   *
   * @param region index, 0 to what {@link #scan} returned, exclusive
   * @return address behind its last byte
   */
  public long end(int region) {
    return field(region, REGION$end);
  }

  /**
   * What the pages of a region of the last scan are.
   *
   * @param region index, 0 to what {@link #scan} returned, exclusive
   * @return {@code PAGE_IS_} bits, of those that the query asked for
   */
  public long categories(int region) {
    return field(region, REGION$categories);
  }

  private long field(int region, long offset) {
    Objects.checkIndex(region, regions);
    return memory.get(JAVA_LONG, ARG_BYTES + region * REGION_BYTES + offset);
  }

  /** Closes the descriptor. What the last scan found stays readable. */
  @Override
  public void close() {
    fd.close();
  }
}
