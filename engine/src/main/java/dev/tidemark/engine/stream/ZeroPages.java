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

  private static boolean isZero(MemorySegment memory, long offset) {
    return OPS.isZero(memory, offset, Pages.SIZE);
  }

  /** How many pages are zero, before the first that is not. */
  static long count(MemorySegment memory, long offset, long pages) {
    return OPS.zeroPages(memory, offset, pages);
  }

  /** Makes a page zero; does not write to one that is, which keeps private memory unallocated. */
  static void clear(MemorySegment memory, long offset) {
    if (!isZero(memory, offset)) {
      MemorySegment.copy(ZERO, 0, memory, offset, Pages.SIZE);
    }
  }
}
