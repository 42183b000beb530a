package dev.tidemark.engine.bitmap;

import java.lang.foreign.MemorySegment;
import java.util.Locale;

/**
 * Goes through the runs of a bitmap, from low to high, as often as it is reset.
 *
 * <p>Threading: one thread; the bitmap must not change meanwhile. Footprint: 75 KiB. Cost: a line
 * of the bitmap at a time, or only the lines that a summary names; nothing is allocated. The cursor
 * reads ahead by some 1000 to 5100 runs.
 */
public final class RunCursor {
  /** Bits of the largest bitmap: the lines of more do not fit into ints. */
  private static final long MOST_BITS = 1L << 40;

  /** Words looked at in one go at most, so that places in them are ints. */
  private static final long MOST_WORDS = 1 << 24;

  /** Keeps a bitmap's memory in place while a batch is read from it. */
  public interface Lease {
    /**
     * Begins to read.
     *
     * @throws RuntimeException if the memory is gone or not to be read any more
     */
    void begin();

    /** Ends what {@link #begin} began. */
    void end();
  }

  private final CheckedBitmapOps ops;
  private final RunScan scan = new RunScan();

  /** Taken around each batch; null if the memory outlives the cursor's use. */
  private Lease lease;

  private long startWord;
  private long endWord;

  /** The bits of the first and of the last word that are in the range. */
  private long firstMask;

  private long lastMask;

  /** The first word of the first line that is whole, and of the first one behind those. */
  private long firstWhole;

  private long endWhole;

  /** The next line's first word. */
  private long word;

  /** Whether the last line ended in a run, and where that began. */
  private boolean open;

  private long opened;

  /** Whether every bit is known to be set, from the first on to the last. */
  private boolean all;

  private long endBit;

  /** Makes a cursor without any runs, to be reset. */
  public RunCursor() {
    this(Bitmaps.chosen());
  }

  RunCursor(CheckedBitmapOps ops) {
    this.ops = ops;
  }

  /**
   * Begins with a range of a bitmap.
   *
   * @param map as for {@link BitmapOps}
   * @param from first bit
   * @param end bit behind the last, not less than {@code from}
   * @throws IndexOutOfBoundsException if the bitmap does not hold the range
   * @throws IllegalArgumentException if the range ends behind 2^40 bits, 4 PiB of pages
   */
  public void reset(MemorySegment map, long from, long end) {
    CheckedBitmapOps.checkRange(map, from, end - from);
    begin(map, null, from, end, null);
  }

  /**
   * Begins with a bitmap that has a summary.
   *
   * @param map as for {@link BitmapOps}
   * @param lines as {@link BitmapOps#summarize} wrote it
   * @param end bit behind the last
   * @throws IndexOutOfBoundsException if the bitmap or the summary is shorter
   * @throws IllegalArgumentException as said
   */
  public void reset(MemorySegment map, MemorySegment lines, long end) {
    reset(map, lines, end, null);
  }

  /**
   * Begins with a bitmap that has a summary, in memory that another thread may take away.
   *
   * @param map as for {@link BitmapOps}
   * @param lines as {@link BitmapOps#summarize} wrote it
   * @param end bit behind the last
   * @param lease taken around each {@link #batch()}, which throws what {@link Lease#begin} throws
   * @throws IndexOutOfBoundsException if the bitmap or the summary is shorter
   * @throws IllegalArgumentException if the range ends behind 2^40 bits, 4 PiB of pages
   */
  public void reset(MemorySegment map, MemorySegment lines, long end, Lease lease) {
    CheckedBitmapOps.checkRange(map, 0, end);
    CheckedBitmapOps.checkRange(lines, 0, end + 511 >>> 9);
    begin(map, lines, 0, end, lease);
  }

  /**
   * Begins with a bitmap of which every bit is known to be set, so that none is read.
   *
   * @param end bit after the last
   * @param lease as for a bitmap with a summary
   * @throws IllegalArgumentException if the range ends after 2^40 bits, 4 PiB of pages
   */
  public void resetToAll(long end, Lease lease) {
    begin(null, null, 0, end, lease);
    all = true;
    opened = 0;
  }

  private void begin(MemorySegment map, MemorySegment lines, long from, long end, Lease lease) {
    if (end > MOST_BITS) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "a range up to bit %d: 2^40 at most; beyond, take slices of the bitmap",
              end));
    }
    this.lease = lease;
    startWord = from >>> 6;
    endWord = from == end ? 0 : end + 63 >>> 6;
    firstMask = -1L << from;
    lastMask = -1L >>> -end;
    word = startWord & -8;
    firstWhole = from + 511 >>> 9 << 3;
    scan.begin(map, lines, firstWhole >>> 3);
    endWhole = end >>> 9 << 3;
    open = false;
    all = false;
    endBit = end;
  }

  /**
   * Goes on to the next runs. They are handed out many at a time, because an index in the caller's
   * loop costs less than a place that is kept here. A run of more than 2^30 bits may come in parts.
   *
   * @return how many there are now, 0 after the last
   */
  public int batch() {
    if (lease == null) {
      return list();
    }
    lease.begin();
    try {
      return list();
    } finally {
      lease.end();
    }
  }

  /** The one run, or the next part of it. */
  private int listAll() {
    long length = Math.min(endBit - opened, MOST_WORDS << 6);
    scan.base = opened;
    scan.ends[0] = 0;
    scan.ends[1] = (int) length;
    opened += length;
    return length == 0 ? 0 : 1;
  }

  private int list() {
    if (all) {
      return listAll();
    }
    int n;
    int[] ends = scan.ends;
    do {
      long stop = word + MOST_WORDS;
      long base = open ? opened : word << 6;
      scan.base = base;
      ends[0] = 0;
      n = open ? 1 : 0;
      while (word < endWord && n < RunScan.ENOUGH && word < stop) {
        if (word < firstWhole || word >= endWhole) {
          n = listPart(n);
          word += 8;
        } else {
          scan.line = word >>> 3;
          long last = Math.min(endWhole, stop) >>> 3;
          n = ops.listRuns(scan, last, n);
          word = scan.line << 3;
        }
      }
      open = (n & 1) != 0;
      if (open && word >= endWord) {
        ends[n++] = (int) ((endWord << 6) - base);
        open = false;
      } else if (open && (word << 6) - base >= MOST_WORDS << 6) {
        // The rest keeps a bit, as the next one may be clear.
        opened = (word << 6) - 1;
        ends[n++] = (int) (opened - base);
      } else if (open) {
        opened = base + ends[--n];
      }
    } while (n == 0 && word < endWord);
    return n >> 1;
  }

  /**
   * A run's first bit.
   *
   * @param run 0 to one less than {@link #batch()} has returned
   */
  public long start(int run) {
    return scan.base + scan.ends[2 * run];
  }

  /** A run's length in bits, 1 or more. */
  public long length(int run) {
    return scan.ends[2 * run + 1] - scan.ends[2 * run];
  }

  /** Lists the ends in a line at an end of the range. */
  private int listPart(int before) {
    int n = before;
    long low = n & 1;
    boolean named = scan.lines == null || ScalarBitmapOps.anyRange(scan.lines, word >>> 3, 1);
    for (long i = word; i < Math.min(word + 8, endWord); i++) {
      long bits = named && i >= startWord ? scan.map.get(CheckedBitmapOps.WORD, i << 3) : 0;
      bits &= i == startWord ? firstMask : -1;
      bits &= i == endWord - 1 ? lastMask : -1;
      long edge = bits ^ (bits << 1 | low);
      int count = Long.bitCount(edge);
      ScalarBitmapOps.listBits(edge, count, (int) ((i << 6) - scan.base), scan.ends, n);
      n += count;
      low = bits >>> 63;
    }
    return n;
  }
}
