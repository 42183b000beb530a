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

  /** Which of up to 64 pages are zero, a bit each. */
  static long find(MemorySegment memory, long offset, int pages) {
    return OPS.zeroPages(memory, offset, pages);
  }

  /** Makes a page zero; does not write to one that is, which keeps private memory unallocated. */
  static void clear(MemorySegment memory, long offset) {
    if (find(memory, offset, 1) == 0) {
      MemorySegment.copy(ZERO, 0, memory, offset, Pages.SIZE);
    }
  }
}
