package dev.tidemark.engine.bitmap;

import static java.nio.ByteOrder.LITTLE_ENDIAN;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Locale;

/** The one place where arguments are checked. What arrives at the twins below is right. */
abstract class CheckedBitmapOps implements BitmapOps {
  static final ValueLayout.OfLong WORD = ValueLayout.JAVA_LONG.withOrder(LITTLE_ENDIAN);

  abstract void doOr(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits);

  abstract long doOrCount(
      MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits);

  abstract long doOrCountClear(
      MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits);

  abstract void doAndNot(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits);

  abstract long doCardinality(MemorySegment map, long bit, long bits);

  abstract boolean doAny(MemorySegment map, long bit, long bits);

  abstract void doSet(MemorySegment map, long bit, long bits);

  abstract void doClear(MemorySegment map, long bit, long bits);

  abstract long doNextSet(MemorySegment map, long from, long end);

  abstract long doNextClear(MemorySegment map, long from, long end);

  abstract long doSummarize(MemorySegment map, long words, MemorySegment lines);

  abstract void doClearLines(MemorySegment map, long words, MemorySegment lines);

  abstract long doOrLines(MemorySegment dst, MemorySegment src, long words, MemorySegment lines);

  /**
   * Lists where runs start and stop in whole lines, in turn, for {@link RunCursor}: the set bits of
   * each word differenced with itself, one bit further on. Stops after a line with which there are
   * {@link RunScan#ENOUGH}, or some lines later. A run that is open at the end of the last line
   * stays open.
   *
   * @param scan says where to begin, and takes what is found
   * @param end line behind the last
   * @param n where in {@link RunScan#ends} to go on; an odd one says that a run is open
   * @return the new {@code n}
   */
  abstract int listRuns(RunScan scan, long end, int n);

  /**
   * Has the compiler count a call of each method that a kernel consists of, with nothing to do.
   *
   * @param attempt as {@link EmptyCalls#make} has it
   * @param map native memory that no arena closes; not changed
   * @param scan begun with it, with nothing to list
   */
  void callEmpty(Kernel kernel, int attempt, MemorySegment map, RunScan scan) {}

  @Override
  public final void or(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    checkPair(dst, dstBit, src, srcBit, bits);
    doOr(dst, dstBit, src, srcBit, bits);
  }

  @Override
  public final long orCount(
      MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    checkPair(dst, dstBit, src, srcBit, bits);
    return doOrCount(dst, dstBit, src, srcBit, bits);
  }

  @Override
  public final long orCountClear(
      MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    if (checkPair(dst, dstBit, src, srcBit, bits)) {
      throw new IllegalArgumentException(
          "clearing the source would lose what it was merged into: both are the same "
              + bits
              + " bits");
    }
    return doOrCountClear(dst, dstBit, src, srcBit, bits);
  }

  @Override
  public final void andNot(
      MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    checkPair(dst, dstBit, src, srcBit, bits);
    doAndNot(dst, dstBit, src, srcBit, bits);
  }

  @Override
  public final long cardinality(MemorySegment map, long bit, long bits) {
    checkRange(map, bit, bits);
    return doCardinality(map, bit, bits);
  }

  @Override
  public final boolean any(MemorySegment map, long bit, long bits) {
    checkRange(map, bit, bits);
    return doAny(map, bit, bits);
  }

  @Override
  public final void set(MemorySegment map, long bit, long bits) {
    checkRange(map, bit, bits);
    doSet(map, bit, bits);
  }

  @Override
  public final void clear(MemorySegment map, long bit, long bits) {
    checkRange(map, bit, bits);
    doClear(map, bit, bits);
  }

  @Override
  public final long nextSet(MemorySegment map, long from, long end) {
    checkRange(map, from, end - from);
    return doNextSet(map, from, end);
  }

  @Override
  public final long nextClear(MemorySegment map, long from, long end) {
    checkRange(map, from, end - from);
    return doNextClear(map, from, end);
  }

  @Override
  public final long summarize(MemorySegment map, long words, MemorySegment lines) {
    checkLines(map, words, lines);
    return doSummarize(map, words, lines);
  }

  @Override
  public final void clearLines(MemorySegment map, long words, MemorySegment lines) {
    checkLines(map, words, lines);
    doClearLines(map, words, lines);
  }

  @Override
  public final long orLines(MemorySegment dst, MemorySegment src, long words, MemorySegment lines) {
    checkLines(dst, words, lines);
    checkLines(src, words, lines);
    checkPair(dst, 0, src, 0, words << 6);
    return doOrLines(dst, src, words, lines);
  }

  /** Checks a bitmap and a range of it, in bits. */
  static void checkRange(MemorySegment map, long bit, long bits) {
    if (!map.isNative()) {
      throw onHeap();
    }
    if ((map.address() & 7) != 0) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT, "bitmap at 0x%x: words start at multiples of 8", map.address()));
    }
    long capacity = map.byteSize() >>> 3 << 6;
    if (bit < 0 || bits < 0 || bit > capacity - bits) {
      throw new IndexOutOfBoundsException(
          bits + " bits at bit " + bit + " of a bitmap with whole words for " + capacity);
    }
  }

  /** Whether both ranges are the same one, which is not empty. */
  private static boolean checkPair(
      MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    checkRange(dst, dstBit, bits);
    checkRange(src, srcBit, bits);
    long dstStart = dst.address() + (dstBit >>> 6 << 3);
    long srcStart = src.address() + (srcBit >>> 6 << 3);
    long dstEnd = dst.address() + (dstBit + bits + 63 >>> 6 << 3);
    long srcEnd = src.address() + (srcBit + bits + 63 >>> 6 << 3);
    if (bits == 0 || dstEnd <= srcStart || srcEnd <= dstStart) {
      return false;
    }
    if (dstStart != srcStart || (dstBit & 63) != (srcBit & 63)) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "%d bits at bit %d of 0x%x and at bit %d of 0x%x share words, but are not the same bits",
              bits,
              dstBit,
              dst.address(),
              srcBit,
              src.address()));
    }
    return true;
  }

  private static void checkLines(MemorySegment map, long words, MemorySegment lines) {
    if (words < 0 || words > map.byteSize() >>> 3) {
      throw new IndexOutOfBoundsException(
          words + " words of a bitmap of " + map.byteSize() + " bytes");
    }
    checkRange(map, 0, words << 6);
    long bits = words + 7 >>> 3;
    checkRange(lines, 0, bits);
    long linesEnd = lines.address() + (bits + 63 >>> 6 << 3);
    if (lines.address() < map.address() + (words << 3) && map.address() < linesEnd) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "summary at 0x%x overlaps its plane at 0x%x",
              lines.address(),
              map.address()));
    }
  }

  private static IllegalArgumentException onHeap() {
    return new IllegalArgumentException("heap memory: bitmaps are native memory");
  }
}
