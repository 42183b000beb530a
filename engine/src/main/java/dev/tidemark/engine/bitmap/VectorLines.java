package dev.tidemark.engine.bitmap;

import static dev.tidemark.engine.bitmap.Vectors.ALL;
import static dev.tidemark.engine.bitmap.Vectors.BYTES;
import static dev.tidemark.engine.bitmap.Vectors.ENDLESS;
import static dev.tidemark.engine.bitmap.Vectors.LE;
import static dev.tidemark.engine.bitmap.Vectors.LINE;
import static dev.tidemark.engine.bitmap.Vectors.SPECIES;
import static dev.tidemark.engine.bitmap.Vectors.at;
import static dev.tidemark.engine.bitmap.Vectors.guard;
import static jdk.incubator.vector.LongVector.fromMemorySegment;
import static jdk.incubator.vector.VectorOperators.BIT_COUNT;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LSHR;
import static jdk.incubator.vector.VectorOperators.NE;
import static jdk.incubator.vector.VectorOperators.XOR;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import jdk.incubator.vector.LongVector;
import jdk.incubator.vector.VectorOperators;

/**
 * Summaries, a bit a line: made here, and bitmaps cleared and merged by them. Large ones are made
 * and cleared by two threads.
 */
final class VectorLines {
  private static final long TOPS = 0x8080808080808080L;
  private static final long LOW_16 = 0x0000FFFF0000FFFFL;
  private static final long LOW_32 = 0xFFFFFFFFL;

  /**
   * Bytes that one call summarizes at most: C2 counts in ints with fewer instructions. A lane's 16
   * bits count 8 rounds of 128 bits, its 32 bits 2^12 times that, twice: 2^23.
   */
  private static final long MOST = 16 << 20;

  private static final long ONES = 0x0101010101010101L;

  /**
   * With a check of the alignment C2 keeps the plane's address on the stack: 1.6 times the time.
   */
  private static final ValueLayout.OfLong UNCHECKED = ValueLayout.JAVA_LONG_UNALIGNED.withOrder(LE);

  /** One thread clears fewer lines than this: to wake another costs half of what it would save. */
  private static final long WORTHWHILE = 1 << 15;

  private final SecondThread.Pass summarizing = this::summarizePart;
  private final SecondThread.Pass clearing = this::clearPart;
  private long map;
  private long lines;

  /**
   * Summarizes whole words of the summary.
   *
   * @param bytes of the bitmap, a multiple of 4096
   * @return how many bits there are
   */
  long summarize(MemorySegment map, long bytes, MemorySegment lines) {
    if (BYTES != LINE || map.scope() != ENDLESS || lines.scope() != ENDLESS) {
      return summarizeParts(map, bytes, lines);
    }
    SecondThread second = SecondThread.take(bytes, map, lines);
    if (second == null) {
      return summarizeAll(map.address(), bytes, lines.address());
    }
    return share(second, summarizing, map, bytes, lines);
  }

  private long share(
      SecondThread second,
      SecondThread.Pass pass,
      MemorySegment map,
      long bytes,
      MemorySegment by) {
    this.map = map.address();
    lines = by.address();
    try {
      return second.run(pass, bytes);
    } finally {
      second.release();
    }
  }

  private long summarizePart(long from, long end) {
    return summarizeAll(map + from, end - from, lines + (from >>> 9));
  }

  private long clearPart(long from, long end) {
    clearByAddress(map + from, end - from >>> 6, lines + (from >>> 9));
    return 0;
  }

  /** Any number of bytes. */
  private static long summarizeAll(long map, long bytes, long lines) {
    long count = 0;
    for (long from = 0; from < bytes; from += MOST) {
      int some = (int) Math.min(bytes - from, MOST);
      count += summarizeLines(map + from, some, lines + (from >>> 9));
    }
    return count;
  }

  /**
   * Where a vector is a line, by address. The counts of eight lines are the bytes of one vector,
   * the first line's the lowest: what is not 0 there names the line, and two additions count all
   * eight. Once for 64 lines each lane gets all lanes' bits, and then byte {@code i} of the word
   * has bit {@code i} of each byte. The constants for that are made here, as C2 keeps the address
   * of each that is an object in a register, and has none left for the plane's. No branch on what
   * is in them, as it would be guessed wrongly; and none for a check of the range, which C2 leaves
   * in a loop with another branch. C2 loads in the order in which it walks the ors, and the order
   * of these is as fast as upwards, which most are not.
   */
  static long summarizeLines(long map, int bytes, long lines) {
    if (bytes == 0) {
      return 0;
    }
    LongVector count = LongVector.zero(SPECIES);
    LongVector sums = LongVector.zero(SPECIES);
    LongVector named = LongVector.zero(SPECIES);
    LongVector lane = LongVector.zero(SPECIES).addIndex(1);
    LongVector bitOfLane = LongVector.broadcast(SPECIES, ONES).lanewise(LSHL, lane);
    LongVector half = lane.lanewise(XOR, 4);
    LongVector quarter = lane.lanewise(XOR, 2);
    LongVector eighth = lane.lanewise(XOR, 1);
    for (int done = 0; done < bytes; done += 8 * LINE) {
      long at = map + done & Long.MAX_VALUE >>> 2;
      LongVector a = at(at).lanewise(BIT_COUNT);
      LongVector b = at(at + LINE).lanewise(BIT_COUNT);
      LongVector c = at(at + 2 * LINE).lanewise(BIT_COUNT);
      LongVector d = at(at + 3 * LINE).lanewise(BIT_COUNT);
      LongVector e = at(at + 4 * LINE).lanewise(BIT_COUNT);
      LongVector f = at(at + 5 * LINE).lanewise(BIT_COUNT);
      LongVector g = at(at + 6 * LINE).lanewise(BIT_COUNT);
      LongVector h = at(at + 7 * LINE).lanewise(BIT_COUNT);
      LongVector even = a.or(e.lanewise(LSHL, 32));
      even = even.or(g.lanewise(LSHL, 48).or(c.lanewise(LSHL, 16)));
      LongVector odd = b.or(d.lanewise(LSHL, 16));
      odd = odd.or(f.lanewise(LSHL, 32).or(h.lanewise(LSHL, 48)));
      sums = sums.add(even.add(odd));
      LongVector counts = even.or(odd.lanewise(LSHL, 8));
      named = named.lanewise(LSHR, 1).or(counts.add(~TOPS).and(TOPS));
      if ((done & 7 << 9) == 7 << 9) {
        count = count.add(sums.and(LOW_16)).add(sums.lanewise(LSHR, 16).and(LOW_16));
        named = named.or(half.selectFrom(named));
        named = named.or(quarter.selectFrom(named));
        named = named.or(eighth.selectFrom(named));
        long set = named.and(bitOfLane).reinterpretAsBytes().compare(NE, (byte) 0).toLong();
        long to = lines + (done >>> 12 << 3) & Long.MAX_VALUE >>> 2;
        ALL.set(UNCHECKED, to, set);
        sums = LongVector.zero(SPECIES);
        named = LongVector.zero(SPECIES);
      }
    }
    return count.and(LOW_32).add(count.lanewise(LSHR, 32)).reduceLanes(VectorOperators.ADD);
  }

  /** Where a line is some vectors, or memory may be closed meanwhile. */
  static long summarizeParts(MemorySegment map, long bytes, MemorySegment lines) {
    if (bytes == 0) {
      return 0;
    }
    guard(map);
    guard(lines);
    LongVector count = LongVector.zero(SPECIES);
    for (long block = 0; block < bytes; block += 64 * LINE) {
      long summary = 0;
      for (int line = 0; line < 64; line++) {
        long offset = block + (long) line * LINE;
        LongVector all = fromMemorySegment(SPECIES, map, offset, LE);
        count = count.add(all.lanewise(BIT_COUNT));
        for (int i = BYTES; i < LINE; i += BYTES) {
          LongVector more = fromMemorySegment(SPECIES, map, offset + i, LE);
          count = count.add(more.lanewise(BIT_COUNT));
          all = all.or(more);
        }
        summary |= all.compare(NE, 0).anyTrue() ? 1L << line : 0;
      }
      lines.set(CheckedBitmapOps.WORD, block >>> 9, summary);
    }
    return count.reduceLanes(VectorOperators.ADD);
  }

  /**
   * Clears the lines that a summary names.
   *
   * @param count how many whole lines the bitmap has
   */
  void clearWholeLines(MemorySegment map, long count, MemorySegment lines) {
    boolean byAddress = BYTES == LINE && map.scope() == ENDLESS && lines.scope() == ENDLESS;
    long body = byAddress ? count & -64 : 0;
    // By address last: if C2 inlines it, what is used behind its loop takes its registers.
    clearParts(map, body, count, lines);
    boolean many =
        body >= WORTHWHILE && ScalarBitmapOps.cardinalityRange(lines, 0, body) >= WORTHWHILE;
    SecondThread second = many ? SecondThread.take(body << 6, map, lines) : null;
    if (second == null) {
      clearByAddress(map.address(), body, lines.address());
    } else {
      share(second, clearing, map, body << 6, lines);
    }
  }

  /**
   * Where a vector is a line, by address. Eight lines a round have one look at the safepoint, not
   * eight; and so long a method C2 does not inline where registers are short.
   */
  static void clearByAddress(long map, long count, long lines) {
    if (count == 0) {
      return;
    }
    LongVector zero = LongVector.zero(SPECIES);
    for (long first = 0; first < count; first += 64) {
      long left = ALL.get(UNCHECKED, lines + (first >>> 3) & Long.MAX_VALUE >>> 2);
      if (left == 0) {
        continue;
      }
      long block = map + (first << 6);
      if (left == -1) {
        for (int i = 0; i < 64 * LINE; i += LINE) {
          zero.intoMemorySegment(ALL, block + i & Long.MAX_VALUE >>> 2, LE);
        }
        continue;
      }
      long line;
      for (int some = Long.bitCount(left); some > 7; some -= 8) {
        line = block + ((long) Long.numberOfTrailingZeros(left) << 6);
        zero.intoMemorySegment(ALL, line & Long.MAX_VALUE >>> 2, LE);
        left &= left - 1;
        line = block + ((long) Long.numberOfTrailingZeros(left) << 6);
        zero.intoMemorySegment(ALL, line & Long.MAX_VALUE >>> 2, LE);
        left &= left - 1;
        line = block + ((long) Long.numberOfTrailingZeros(left) << 6);
        zero.intoMemorySegment(ALL, line & Long.MAX_VALUE >>> 2, LE);
        left &= left - 1;
        line = block + ((long) Long.numberOfTrailingZeros(left) << 6);
        zero.intoMemorySegment(ALL, line & Long.MAX_VALUE >>> 2, LE);
        left &= left - 1;
        line = block + ((long) Long.numberOfTrailingZeros(left) << 6);
        zero.intoMemorySegment(ALL, line & Long.MAX_VALUE >>> 2, LE);
        left &= left - 1;
        line = block + ((long) Long.numberOfTrailingZeros(left) << 6);
        zero.intoMemorySegment(ALL, line & Long.MAX_VALUE >>> 2, LE);
        left &= left - 1;
        line = block + ((long) Long.numberOfTrailingZeros(left) << 6);
        zero.intoMemorySegment(ALL, line & Long.MAX_VALUE >>> 2, LE);
        left &= left - 1;
        line = block + ((long) Long.numberOfTrailingZeros(left) << 6);
        zero.intoMemorySegment(ALL, line & Long.MAX_VALUE >>> 2, LE);
        left &= left - 1;
      }
      for (; left != 0; left &= left - 1) {
        line = block + ((long) Long.numberOfTrailingZeros(left) << 6);
        zero.intoMemorySegment(ALL, line & Long.MAX_VALUE >>> 2, LE);
      }
    }
  }

  /** From a line on where a word of the summary begins; of memory that may be closed meanwhile. */
  static void clearParts(MemorySegment map, long from, long count, MemorySegment lines) {
    if (from == count) {
      return;
    }
    guard(map);
    guard(lines);
    LongVector zero = LongVector.zero(SPECIES);
    for (long first = from; first < count; first += 64) {
      long left = lines.get(CheckedBitmapOps.WORD, first >>> 3);
      if (count - first < 64) {
        left &= (1L << count) - 1;
      }
      int some = Long.bitCount(left);
      for (int n = 0; n < some; n++) {
        long offset = first + Long.numberOfTrailingZeros(left) << 6;
        for (int i = 0; i < LINE; i += BYTES) {
          zero.intoMemorySegment(map, offset + i, LE);
        }
        left &= left - 1;
      }
    }
  }

  static long orWholeLines(MemorySegment dst, MemorySegment src, long count, MemorySegment lines) {
    if (count == 0) {
      return 0;
    }
    guard(dst);
    guard(src);
    guard(lines);
    LongVector set = LongVector.zero(SPECIES);
    for (long first = 0; first < count; first += 64) {
      long left = lines.get(CheckedBitmapOps.WORD, first >>> 3);
      if (count - first < 64) {
        left &= (1L << count) - 1;
      }
      for (; left != 0; left &= left - 1) {
        long offset = first + Long.numberOfTrailingZeros(left) << 6;
        for (int i = 0; i < LINE; i += BYTES) {
          LongVector in = fromMemorySegment(SPECIES, src, offset + i, LE);
          LongVector old = fromMemorySegment(SPECIES, dst, offset + i, LE);
          old.or(in).intoMemorySegment(dst, offset + i, LE);
          set = set.add(in.and(old.not()).lanewise(BIT_COUNT));
        }
      }
    }
    return set.reduceLanes(VectorOperators.ADD);
  }
}
