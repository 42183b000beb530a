package dev.tidemark.engine.source.dma;

import dev.tidemark.engine.bitmap.BitmapOps;
import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.engine.bitmap.RunCursor;
import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Mapping;
import java.lang.foreign.MemorySegment;

/**
 * A bitmap in IOVA order for answers that cannot go into a fill plane, and the way from there to
 * the pages of the blocks. All zero between uses.
 *
 * <p>An answer is placed so that its last word is the segment's last: behind it nobody can write.
 *
 * <p>Threading: guarded by its source's ledger. Cost: one pass over an answer's words, and a few
 * loads for each mapping that has bits. Allocates only when an answer is larger than all before.
 */
final class DmaScratch implements AutoCloseable {
  private static final long FIRST_BYTES = 1 << 16;

  /** From here on a mapping's bits are merged by the word instead of run by run. */
  private static final long MERGE_PAGES = 64;

  private final BitmapOps ops = Bitmaps.ops();
  private final DmaCursor cursor = new DmaCursor();
  private final RunCursor runs = new RunCursor();
  private Mapping mapping = Mapping.guarded(FIRST_BYTES);
  private MemorySegment segment = mapping.segment();
  private boolean closed;

  /** The whole bitmap. */
  MemorySegment segment() {
    return segment;
  }

  /**
   * Makes room for an answer from the first bit on, for a kernel that never writes past its end.
   *
   * @return 0, the answer's first bit
   * @throws ClosedException after close
   */
  long reserve(long pages) {
    if (closed) {
      throw new ClosedException("scratch plane of a DMA source");
    }
    long bytes = words(pages) << 3;
    if (bytes > segment.byteSize()) {
      long room = Math.max(bytes + 63 & -64, segment.byteSize() * 2);
      Mapping larger = Mapping.guarded(room);
      Mapping smaller = mapping;
      mapping = larger;
      segment = larger.segment();
      smaller.close();
    }
    return 0;
  }

  /**
   * Makes room for an answer before the guard page.
   *
   * @return the answer's first bit, a multiple of 64
   */
  long place(long pages) {
    long _ = reserve(pages);
    return segment.byteSize() - (words(pages) << 3) << 3;
  }

  static long words(long pages) {
    return pages + 63 >>> 6;
  }

  /** Whether an answer says that every page is dirty. */
  boolean isFull(long bit, long pages) {
    return ops.nextClear(segment, bit, bit + pages) == bit + pages;
  }

  /** Forgets an answer. */
  void clear(long bit, long pages) {
    ops.clear(segment, bit, words(pages) << 6);
  }

  /** Adds a part of an answer that is in another scratch plane. */
  void or(long bit, DmaScratch other, long otherBit, long pages) {
    ops.or(segment, bit, other.segment, otherBit, pages);
  }

  /**
   * Brings an answer into the fill planes, where devices may write, and forgets it.
   *
   * @param iovaPage of its first bit
   */
  void merge(DmaMap map, long iovaPage, long pages, long bit) {
    long end = bit + pages;
    long merged = 0;
    // Whether bits are left behind: any, until the end is reached.
    boolean left = true;
    boolean small = false;
    cursor.resetPages(map, iovaPage, iovaPage + pages);
    if (!cursor.seek(iovaPage)) {
      throw new IllegalArgumentException("nothing is mapped where the answer is from");
    }
    RamBlockLog log = cursor.log();
    FillPlane fill = log.fill();
    try {
      runs.reset(segment, bit, end);
      for (int run = 0, found = runs.batch(); found > 0; ) {
        long at = runs.start(run);
        long runEnd = at + runs.length(run);
        run++;
        while (at < runEnd) {
          if (!cursor.seek(iovaPage + (at - bit))) {
            // Nothing is mapped from here on.
            small = true;
            break;
          }
          long base = bit + (cursor.iovaPage() - iovaPage);
          long stop = Math.min(end, base + cursor.pages());
          if (base > at || !cursor.isWritable()) {
            // Bits over a hole or a read-only mapping stand for nothing that was written.
            small = true;
            at = base > at ? base : stop;
            continue;
          }
          if (cursor.log() != log) {
            fill.close();
            fill = null;
            log = cursor.log();
            fill = log.fill();
          }
          long page = cursor.page() + (at - base);
          if (stop - at >= MERGE_PAGES) {
            fill.mergeAndClear(segment, at, page, stop - at);
            merged += words(stop - at);
            runs.reset(segment, stop, end);
            run = found;
            break;
          }
          small = true;
          long to = Math.min(stop, runEnd);
          fill.set(page, to - at);
          at = to;
        }
        if (run == found) {
          found = runs.batch();
          run = 0;
        }
      }
      fill.countWords(Math.max(0, words(pages) - merged));
      left = small;
    } finally {
      if (fill != null) {
        fill.close();
      }
      if (left) {
        clear(bit, pages);
      }
    }
  }

  /**
   * Marks the pages of an answer dirty, where devices may write, and forgets it.
   *
   * @param iovaPage of its first bit
   * @return how many pages
   */
  long mark(DmaMap map, long iovaPage, long pages, long bit) {
    long end = bit + pages;
    long marked = 0;
    cursor.resetPages(map, iovaPage, iovaPage + pages);
    runs.reset(segment, bit, end);
    for (int found = runs.batch(); found > 0; found = runs.batch()) {
      for (int run = 0; run < found; run++) {
        long first = runs.start(run);
        marked += markRun(first, first + runs.length(run), iovaPage - bit);
      }
    }
    clear(bit, pages);
    return marked;
  }

  /**
   * Marks the pages that a run of bits stands for, its first at {@code toIova} pages further on.
   */
  private long markRun(long first, long end, long toIova) {
    long marked = 0;
    long at = first;
    while (at < end && cursor.seek(at + toIova)) {
      long base = cursor.iovaPage() - toIova;
      long stop = Math.min(end, base + cursor.pages());
      if (base > at || !cursor.isWritable()) {
        at = base > at ? base : stop;
        continue;
      }
      cursor.log().mark(cursor.page() + (at - base), stop - at);
      marked += stop - at;
      at = stop;
    }
    return marked;
  }

  @Override
  public void close() {
    closed = true;
    mapping.close();
  }
}
