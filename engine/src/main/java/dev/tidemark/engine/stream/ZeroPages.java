package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.FileHoles;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * Finds and makes pages that are all zero, in guest memory that may go while it is read.
 *
 * <p>Only plain loads and the JDK's copy touch that memory: of a SIGBUS in these HotSpot makes an
 * {@link InternalError}, of one in a vector load a crash of the process. Out of the cache they are
 * as fast as vectors (decision 3).
 */
final class ZeroPages {
  private static final MemorySegment ZERO = Arena.global().allocate(Pages.SIZE, 64);

  private ZeroPages() {}

  /** How many pages a call takes. */
  static final int MOST = 64;

  /** Which of up to {@value #MOST} pages are zero, a bit each. */
  static long find(MemorySegment memory, long offset, int pages) {
    long zero = 0;
    for (int page = 0; page < pages; page++) {
      if (isZero(memory, offset + ((long) page << Pages.SHIFT))) {
        zero |= 1L << page;
      }
    }
    return zero;
  }

  /** A line of the cache a step: a loop over single words waits for a branch for each. */
  private static boolean isZero(MemorySegment memory, long offset) {
    for (int i = 0; i < Pages.SIZE; i += 64) {
      long at = offset + i;
      long any =
          memory.get(JAVA_LONG, at)
              | memory.get(JAVA_LONG, at + 8)
              | memory.get(JAVA_LONG, at + 16)
              | memory.get(JAVA_LONG, at + 24)
              | memory.get(JAVA_LONG, at + 32)
              | memory.get(JAVA_LONG, at + 40)
              | memory.get(JAVA_LONG, at + 48)
              | memory.get(JAVA_LONG, at + 56);
      if (any != 0) {
        return false;
      }
    }
    return true;
  }

  /**
   * Makes up to {@value #MOST} pages zero; does not write to those that are, which keeps private
   * memory unallocated.
   */
  static void clear(MemorySegment memory, long offset, int pages) {
    long zero = find(memory, offset, pages);
    for (int page = 0; page < pages; page++) {
      if ((zero >>> page & 1) == 0) {
        MemorySegment.copy(ZERO, 0, memory, offset + ((long) page << Pages.SHIFT), Pages.SIZE);
      }
    }
  }

  /**
   * Makes up to {@value #MOST} pages of a file's mapping zero; does not even read from holes.
   *
   * @param vector native memory of {@value #MOST} bytes, overwritten
   */
  static void clear(
      MemorySegment memory, FileHoles holes, MemorySegment vector, long offset, int pages) {
    for (int page = 0; page < pages; ) {
      long at = offset + ((long) page << Pages.SHIFT);
      int some = holes.resident(at, pages - page, vector);
      if (some == 0) {
        some = (int) Math.min(pages - page, holes.holeEnd(at) - at >> Pages.SHIFT);
        if (some > 0) {
          page += some;
          continue;
        }
        some = 1;
      }
      clear(memory, at, some);
      page += some;
    }
  }
}
