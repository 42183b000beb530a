package dev.tidemark.engine.bitmap;

import java.lang.foreign.MemorySegment;

/**
 * Goes through the runs of a bitmap, from low to high, as often as it is reset.
 *
 * <p>Threading: one thread; the bitmap must not change meanwhile. Footprint: 38 KiB. Cost: a line
 * of the bitmap at a time, or only the lines that a summary names; nothing is allocated. The cursor
 * reads ahead by some 500 to 2600 runs.
 */
public final class RunCursor {
  /** Runs are looked for until there are this many ends of them. */
  static final int ENOUGH = 1024;

  /** Lines that a twin may look at before it lists what is in them. */
  static final int LINES = 64;

  /** Words with edges that may be in those: in each line, and one behind it. */
  static final int WORDS = 9 * LINES;

  /** Words of a summary with the lines to look at that a twin may list at a time, and 7 more. */
  static final int NAMING = 24;

  /** Words whose edges are listed at a time. */
  static final int LISTING = 64;

  /**
   * What is where in {@link #edges}: the next line to look at, or with edges to list; the first
   * line that nobody named yet, the next in the list of those that are named and how many that has;
   * the line behind those looked at, the next word to list and how many there are; what was read
   * ahead; words with edges, their places.
   */
  static final int LINE = 0;

  static final int UNNAMED = 1;
  static final int NEXT = 2;
  static final int COUNT = 3;
  static final int BEHIND = 4;
  static final int WORD = 5;
  static final int FOUND = 6;
  static final int READ = 7;
  static final int EDGES = 8;
  static final int PLACES = EDGES + WORDS + 8;

  /** Bits of the largest bitmap: the lines of more do not fit into ints. */
  private static final long MOST_BITS = 1L << 40;

  /** Words looked at in one go at most, so that places in them are ints. */
  private static final long MOST_WORDS = 1 << 24;

  private final CheckedBitmapOps ops;

  /** Where runs start and stop, in turn, from {@link #base} on; with room for LISTING and some. */
  private final int[] ends = new int[ENOUGH + 64 * LISTING + 64];

  private final long[] edges = new long[PLACES + WORDS + 8];

  /** Lines that a twin has listed, with room for what a word names and some. */
  private final int[] named = new int[64 * (NAMING + 7) + 64];

  private long base;
  private MemorySegment map;
  private MemorySegment lines;
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
    begin(map, null, from, end);
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
    CheckedBitmapOps.checkRange(map, 0, end);
    CheckedBitmapOps.checkRange(lines, 0, end + 511 >>> 9);
    begin(map, lines, 0, end);
  }

  private void begin(MemorySegment map, MemorySegment lines, long from, long end) {
    if (end > MOST_BITS) {
      throw new IllegalArgumentException(
          "a range up to bit %d: 2^40 at most; beyond, take slices of the bitmap".formatted(end));
    }
    this.map = map;
    this.lines = lines;
    startWord = from >>> 6;
    endWord = from == end ? 0 : end + 63 >>> 6;
    firstMask = -1L << from;
    lastMask = -1L >>> -end;
    word = startWord & -8;
    firstWhole = from + 511 >>> 9 << 3;
    edges[UNNAMED] = firstWhole >>> 3;
    edges[BEHIND] = firstWhole >>> 3;
    edges[NEXT] = 0;
    edges[COUNT] = 0;
    edges[WORD] = 0;
    edges[FOUND] = 0;
    endWhole = end >>> 9 << 3;
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
        if (word < firstWhole || word >= endWhole) {
          n = listPart(n);
          word += 8;
        } else {
          edges[LINE] = word >>> 3;
          long last = Math.min(endWhole, stop) >>> 3;
          n = ops.listRuns(map, lines, base, last, ends, n, edges, named);
          word = edges[LINE] << 3;
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

  /**
   * Which lines are to be looked at, from one on to the end of a word of the summary.
   *
   * @param end line behind the last
   * @return the line itself in bit 0
   */
  static long named(MemorySegment lines, long line, long end) {
    long count = Math.min(64 - (line & 63), end - line);
    long named = lines == null ? -1 : lines.get(CheckedBitmapOps.WORD, line >>> 6 << 3) >>> line;
    return named & -1L >>> -count;
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
