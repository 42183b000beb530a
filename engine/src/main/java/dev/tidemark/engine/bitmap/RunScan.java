package dev.tidemark.engine.bitmap;

import java.lang.foreign.MemorySegment;

/**
 * Where a scan for runs is, and what it has found: what a {@link RunCursor} and the twin that works
 * for it hand to each other.
 *
 * <p>Footprint: 75 KiB.
 */
final class RunScan {
  /** Runs are looked for until there are this many ends of them. */
  static final int ENOUGH = 2048;

  /** Lines that a twin may look at before it lists what is in them. */
  static final int LINES = 128;

  /** Words with edges that may be in those: in each line, and one behind it. */
  private static final int WORDS = 9 * LINES;

  /** Words of a summary with the lines to look at that a twin may list at a time, and 7 more. */
  static final int NAMING = 56;

  /** Words whose edges are listed at a time. */
  static final int LISTING = 128;

  /** How far behind a word with edges in {@link #edges} stands where it begins, in bits. */
  static final int PLACE = WORDS + 8;

  /** Where the lines that a twin has listed begin in {@link #ends}. */
  static final int NAMED = ENOUGH + 64 * LISTING + 64;

  MemorySegment map;

  /** The twin that does the whole scan, as each has its own way to read ahead; null before. */
  CheckedBitmapOps twin;

  /** The summary, null if every line is to be looked at. */
  MemorySegment lines;

  /** The bit that {@link #ends} count from. */
  long base;

  /**
   * Where runs start and stop, in turn, with room for LISTING and some; and lines that a twin has
   * listed, with room for what a word names and some. One array, as C2 keeps address and length of
   * each in registers, and has too few for more.
   */
  final int[] ends = new int[NAMED + 64 * (NAMING + 7) + 64];

  /** The next line to look at, or with edges to list. */
  long line;

  /** The first line that nobody named yet. */
  long unnamed;

  /** The place behind the last line listed, and that of the next one. */
  int namedEnd;

  int nextNamed;

  /** The line behind those looked at. */
  long behind;

  /** Words with edges, with room for a vector; and where each begins. */
  final long[] edges = new long[2 * PLACE];

  /** How many {@link #edges} there are, and which is the next to list. */
  int edgeCount;

  int nextEdge;

  /** What was read ahead; kept, or else the compiler would leave the loads out. */
  long read;

  /** Begins at a line. */
  void begin(MemorySegment map, MemorySegment lines, long first) {
    this.map = map;
    twin = null;
    this.lines = lines;
    unnamed = first;
    behind = first;
    namedEnd = NAMED;
    nextNamed = NAMED;
    edgeCount = 0;
    nextEdge = 0;
  }

  /**
   * Which lines are to be looked at, from one on to the end of a word of the summary.
   *
   * @param end line behind the last
   * @return the line itself in bit 0
   */
  long namedFrom(long first, long end) {
    long count = Math.min(64 - (first & 63), end - first);
    long bits = lines == null ? -1 : lines.get(CheckedBitmapOps.WORD, first >>> 6 << 3) >>> first;
    return bits & -1L >>> -count;
  }
}
