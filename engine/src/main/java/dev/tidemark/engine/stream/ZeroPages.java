package dev.tidemark.engine.stream;

import dev.tidemark.engine.bitmap.BitmapOps;
import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/** Finds and makes pages that are all zero. */
final class ZeroPages {
  private static final BitmapOps OPS = Bitmaps.ops();
  private static final MemorySegment ZERO = Arena.global().allocate(Pages.SIZE, 64);

  private ZeroPages() {}

  /** How many pages a call takes. */
  static final int MOST = 64;

  /** Which of up to {@value #MOST} pages are zero, a bit each. */
  static long find(MemorySegment memory, long offset, int pages) {
    return OPS.zeroPages(memory, offset, pages);
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
}
