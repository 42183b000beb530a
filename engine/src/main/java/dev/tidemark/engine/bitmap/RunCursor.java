package dev.tidemark.engine.bitmap;

import java.lang.foreign.MemorySegment;

/**
 * Goes through the runs of a bitmap, from low to high, as often as it is reset.
 *
 * <p>Threading: one thread; the bitmap must not change meanwhile. Footprint: 9 KiB. Cost: a word of
 * the bitmap at a time, or only the lines that a summary names; nothing is allocated. The cursor
 * reads ahead by some 500 runs.
 */
public final class RunCursor {
  /** Runs are looked for until there are this many ends of them. */
  private static final int ENOUGH = 1024;

  /** Where runs start and stop, in turn; with room for a line of single bits. */
  private final long[] ends = new long[ENOUGH + 513];

  private int found;
  private int next;

  private MemorySegment map;
  private MemorySegment lines;
  private long endWord;

  /** The bits of the last word that are in the range. */
  private long lastMask;

  private long word;

  /** The bits of {@link #word} that are in the range: all, except in the first word. */
  private long firstMask;

  /** The highest bit of the word before: 1 if a run is open, which began at {@link #opened}. */
  private long before;

  private long opened;

  private long start;
  private long length;

  /** Makes a cursor without any runs, to be reset. */
  public RunCursor() {}

  /**
   * Begins with a range of a bitmap.
   *
   * @param map as for {@link BitmapOps}
   * @param from first bit
   * @param end bit behind the last, not less than {@code from}
   * @throws IndexOutOfBoundsException if the bitmap does not hold the range
   */
  public void reset(MemorySegment map, long from, long end) {
    CheckedBitmapOps.checkRange(map, from, end - from);
    begin(map, null, from, end);
  }

  /**
   * Begins with a bitmap that has a summary.
   *
   * @param map as for {@link BitmapOps}
   * @param lines as {@link BitmapOps#summarize} wrote it
   * @param end bit behind the last
   * @throws IndexOutOfBoundsException if the bitmap or the summary is shorter
   */
  public void reset(MemorySegment map, MemorySegment lines, long end) {
    CheckedBitmapOps.checkRange(map, 0, end);
    CheckedBitmapOps.checkRange(lines, 0, end + 511 >>> 9);
    begin(map, lines, 0, end);
  }

  private void begin(MemorySegment map, MemorySegment lines, long from, long end) {
    this.map = map;
    this.lines = lines;
    endWord = from == end ? 0 : end + 63 >>> 6;
    lastMask = -1L >>> -end;
    word = from >>> 6;
    firstMask = -1L << from;
    before = 0;
    found = 0;
    next = 0;
  }

  /**
   * Goes on to the next run.
   *
   * @return whether there is one
   */
  public boolean next() {
    if (next == found) {
      next = 0;
      found = lines == null ? find(map) : find(map, lines);
      if (found == 0) {
        length = 0;
        return false;
      }
    }
    start = ends[next];
    length = ends[next + 1] - start;
    next += 2;
    return true;
  }

  /** The run's first bit. */
  public long start() {
    return start;
  }

  /** The run's length in bits, 1 or more; 0 after the last run. */
  public long length() {
    return length;
  }

  /**
   * Notes where runs start and stop, without a branch for each bit: those are the set bits of a
   * word differenced with itself.
   */
  private int find(MemorySegment map) {
    long[] ends = this.ends;
    ends[0] = opened;
    int n = (int) before;
    long i = word;
    long mask = firstMask;
    long before = this.before;
    for (; i < endWord && n < ENOUGH; i++) {
      long bits = map.get(CheckedBitmapOps.WORD, i << 3) & mask;
      mask = -1;
      if (i == endWord - 1) {
        bits &= lastMask;
      }
      for (long edges = bits ^ (bits << 1 | before); edges != 0; edges &= edges - 1) {
        ends[n++] = (i << 6) + Long.numberOfTrailingZeros(edges);
      }
      before = bits >>> 63;
    }
    return pause(n, i, mask, before);
  }

  /** The same, where the summary says that there is something. */
  private int find(MemorySegment map, MemorySegment lines) {
    long[] ends = this.ends;
    ends[0] = opened;
    int n = (int) before;
    long i = word;
    long before = this.before;
    while (i < endWord && n < ENOUGH) {
      long named = lines.get(CheckedBitmapOps.WORD, i >>> 9 << 3) >>> (i >>> 3);
      if ((named & 1) == 0) {
        if (before != 0) {
          ends[n++] = i << 6;
          before = 0;
        }
        // The next line that is named, if any in this word of the summary.
        long skip = named == 0 ? 64 - (i >>> 3 & 63) : Long.numberOfTrailingZeros(named);
        i += skip << 3;
        continue;
      }
      for (long stop = Math.min(i + 8, endWord); i < stop; i++) {
        long bits = map.get(CheckedBitmapOps.WORD, i << 3);
        if (i == endWord - 1) {
          bits &= lastMask;
        }
        for (long edges = bits ^ (bits << 1 | before); edges != 0; edges &= edges - 1) {
          ends[n++] = (i << 6) + Long.numberOfTrailingZeros(edges);
        }
        before = bits >>> 63;
      }
    }
    return pause(n, Math.min(i, endWord), -1, before);
  }

  private int pause(int n, long word, long mask, long before) {
    this.word = word;
    firstMask = mask;
    this.before = before;
    if (before != 0 && word == endWord) {
      ends[n++] = word << 6;
      this.before = 0;
    } else if (before != 0) {
      opened = ends[--n];
    }
    return n;
  }
}
