package dev.tidemark.engine.bitmap;

import java.lang.foreign.MemorySegment;

/**
 * Goes through the runs of a bitmap, from low to high, as often as it is reset.
 *
 * <p>Threading: one thread; the bitmap must not change meanwhile. Cost: a word of the bitmap at a
 * time, or only the lines that a summary names; nothing is allocated.
 */
public final class RunCursor {
  private MemorySegment map;
  private MemorySegment lines;
  private long end;

  /** Index of the word that {@link #rest} is left of. */
  private long word;

  /** The bits of the word that no run has covered yet. */
  private long rest;

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
    this.map = map;
    this.lines = null;
    this.end = end;
    word = from >>> 6;
    rest = from < end ? load(word) & -1L << from : 0;
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
    this.map = map;
    this.lines = lines;
    this.end = end;
    word = -1;
    rest = 0;
  }

  /**
   * Goes on to the next run.
   *
   * @return whether there is one
   */
  public boolean next() {
    if (rest == 0 && !findWord()) {
      length = 0;
      return false;
    }
    start = (word << 6) + Long.numberOfTrailingZeros(rest);
    long filled = rest | rest - 1;
    // A word that is full from here up goes on in the next one.
    while (filled == -1 && word + 1 << 6 < end) {
      word++;
      rest = load(word);
      filled = rest;
    }
    long stop = (word << 6) + Long.numberOfTrailingZeros(~filled);
    rest &= filled + 1;
    length = stop - start;
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

  private boolean findWord() {
    long endWord = end + 63 >>> 6;
    for (long i = word + 1; i < endWord; i++) {
      if (lines != null && (i & 7) == 0) {
        i = nextLine(i >>> 3) << 3;
        if (i >= endWord) {
          break;
        }
      }
      long bits = load(i);
      if (bits != 0) {
        word = i;
        rest = bits;
        return true;
      }
    }
    word = endWord;
    return false;
  }

  private long nextLine(long from) {
    return ScalarBitmapOps.nextSetRange(lines, from, end + 511 >>> 9);
  }

  private long load(long index) {
    long bits = map.get(CheckedBitmapOps.WORD, index << 3);
    return end - (index << 6) < 64 ? bits & (1L << end) - 1 : bits;
  }
}
