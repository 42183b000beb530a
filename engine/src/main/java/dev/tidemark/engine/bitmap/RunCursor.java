package dev.tidemark.engine.bitmap;

import java.lang.foreign.MemorySegment;

/**
 * Goes through the runs of a bitmap, from low to high, as often as it is reset.
 *
 * <p>Threading: one thread; the bitmap must not change meanwhile. Footprint: 26 KiB. Cost: a line
 * of the bitmap at a time, or only the lines that a summary names; nothing is allocated. The cursor
 * reads ahead by some 500 to 3000 runs.
 */
public final class RunCursor {
  /** Runs are looked for until there are this many ends of them. */
  static final int ENOUGH = 1024;

  /** Words with edges that a twin may collect before it lists what is in them; plus a line. */
  static final int WORDS = 64;

  /** What is where in {@link #edges}: lines not looked at, words with edges, their places. */
  static final int LEFT = 0;

  static final int EDGES = 1;
  static final int PLACES = EDGES + WORDS + 24;

  /** Words looked at in one go at most, so that places in them are ints. */
  private static final long MOST_WORDS = 1 << 24;

  private final CheckedBitmapOps ops;

  /** Where runs start and stop, in turn, from {@link #base} on; with room for WORDS and some. */
  private final int[] ends = new int[ENOUGH + 64 * (WORDS + 16) + 16];

  private final long[] edges = new long[PLACES + WORDS + 24];
  private long base;
  private MemorySegment map;
  private MemorySegment lines;
  private long startWord;
  private long endWord;

  /** The bits of the first and of the last word that are in the range. */
  private long firstMask;

  private long lastMask;

  /** The first word of the second line, and of the last: only the ones between are whole. */
  private long secondLine;

  private long lastLine;

  /** The next line's first word. */
  private long word;

  /** Whether the last line ended in a run, and where that began. */
  private boolean open;

  private long opened;

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
    startWord = from >>> 6;
    endWord = from == end ? 0 : end + 63 >>> 6;
    firstMask = -1L << from;
    lastMask = -1L >>> -end;
    word = startWord & -8;
    secondLine = word + 8;
    lastLine = endWord - 1 & -8;
    open = false;
  }

  /**
   * Goes on to the next runs. They are handed out many at a time, because an index in the caller's
   * loop costs less than a place that is kept here. A run of more than 2^30 bits may come in parts.
   *
   * @return how many there are now, 0 after the last
   */
  public int batch() {
    int n;
    do {
      long stop = word + MOST_WORDS;
      base = open ? opened : word << 6;
      ends[0] = 0;
      n = open ? 1 : 0;
      while (word < endWord && n < ENOUGH && word < stop) {
        if (word < secondLine || word >= lastLine) {
          n = listPart(n);
          word += 8;
        } else {
          n = listLines(n);
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
    return base + ends[2 * run];
  }

  /** A run's length in bits, 1 or more. */
  public long length(int run) {
    return ends[2 * run + 1] - ends[2 * run];
  }

  /** Lists the ends in whole lines, up to the next 64 of them. */
  private int listLines(int before) {
    int n = before;
    long first = word;
    long count = Math.min(64 - (first >>> 3 & 63), lastLine - first >>> 3);
    long named =
        lines == null ? -1 : lines.get(CheckedBitmapOps.WORD, first >>> 9 << 3) >>> (first >>> 3);
    named &= -1L >>> -count;
    if (named == 0 && (n & 1) == 0) {
      word = first + (count << 3);
      return n;
    }
    n = ops.listRuns(map, first << 3, named, (int) ((first << 6) - base), ends, n, edges);
    // The line behind the last that was looked at, and the next one that is named.
    long left = edges[LEFT];
    long behind = 64 - Long.numberOfLeadingZeros(named & ~left);
    long onwards = left == 0 ? count : Long.numberOfTrailingZeros(left);
    if ((n & 1) != 0 && behind < onwards) {
      ends[n++] = (int) ((first + (behind << 3) << 6) - base);
    }
    word = first + (onwards << 3);
    return n;
  }

  /** Lists the ends in a line at an end of the range. */
  private int listPart(int before) {
    int n = before;
    long low = n & 1;
    boolean named = lines == null || ScalarBitmapOps.anyRange(lines, word >>> 3, 1);
    for (long i = word; i < Math.min(word + 8, endWord); i++) {
      long bits = named && i >= startWord ? map.get(CheckedBitmapOps.WORD, i << 3) : 0;
      bits &= i == startWord ? firstMask : -1;
      bits &= i == endWord - 1 ? lastMask : -1;
      long edge = bits ^ (bits << 1 | low);
      int count = Long.bitCount(edge);
      ScalarBitmapOps.listBits(edge, count, (int) ((i << 6) - base), ends, n);
      n += count;
      low = bits >>> 63;
    }
    return n;
  }
}
