package dev.tidemark.engine.bitmap;

import static dev.tidemark.engine.bitmap.Vectors.ALL;
import static dev.tidemark.engine.bitmap.Vectors.BYTES;
import static dev.tidemark.engine.bitmap.Vectors.ENDLESS;
import static dev.tidemark.engine.bitmap.Vectors.LE;
import static dev.tidemark.engine.bitmap.Vectors.PAIR;
import static dev.tidemark.engine.bitmap.Vectors.SPECIES;
import static dev.tidemark.engine.bitmap.Vectors.at;
import static dev.tidemark.engine.bitmap.Vectors.guard;
import static jdk.incubator.vector.LongVector.fromMemorySegment;
import static jdk.incubator.vector.VectorOperators.BIT_COUNT;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LSHR;
import static jdk.incubator.vector.VectorOperators.NE;

import java.lang.foreign.MemorySegment;
import jdk.incubator.vector.LongVector;
import jdk.incubator.vector.VectorOperators;

/**
 * Merges of whole vectors: the kernels whose source begins with a word of the destination, and
 * those whose source is shifted. Large ones are shared with a second thread.
 */
final class VectorMerges implements SecondThread.Pass {
  /**
   * How many bytes are merged before asking whether the source was clean all along: as many again
   * as had bits so far, within these limits, since each question costs. Merging goes on without a
   * branch on the data; only at the beginning and after a clean stretch are sources scanned for the
   * next bit, and their destinations not touched. By {@code max} and {@code min} in the kernels
   * themselves, as C2 inlines those everywhere: where it does not, and there is a call, a kernel
   * keeps its sums on the stack.
   */
  private static final long SHORT_STRETCH = 32 << 10;

  private static final long LONG_STRETCH = 256 << 10;

  /** Bytes whose bits' number, and theirs, are halves of a long. */
  private static final long MOST = 1 << 28;

  private boolean clear;
  private MemorySegment dst;
  private long d;
  private MemorySegment src;
  private long s;

  /** Merges and counts what is new; clears the source, too, if asked to. */
  long orCount(boolean clear, MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    SecondThread second = SecondThread.take(bytes, dst, src);
    if (second == null) {
      return clear
          ? orCountClearAligned(dst, d, src, s, bytes)
          : orCountAligned(dst, d, src, s, bytes);
    }
    this.clear = clear;
    this.dst = dst;
    this.d = d;
    this.src = src;
    this.s = s;
    try {
      return second.run(this, bytes);
    } finally {
      this.dst = null;
      this.src = null;
      second.release();
    }
  }

  @Override
  public long part(long from, long end) {
    return clear
        ? orCountClearAligned(dst, d + from, src, s + from, end - from)
        : orCountAligned(dst, d + from, src, s + from, end - from);
  }

  /** Words that begin {@code shift} bits, 1 to 63, into the lower ones. */
  private static LongVector join(LongVector low, LongVector high, int shift) {
    return low.lanewise(LSHR, shift).or(high.lanewise(LSHL, 64 - shift));
  }

  /**
   * Where, from {@code i} on, the source may have the next bit: it has none before. The ors are a
   * chain, as C2 then loads upwards.
   */
  static long skipClean(MemorySegment src, long s, long i, long bytes) {
    guard(src);
    long next = i;
    while (next < bytes - 2 * PAIR + 1) {
      long at = s + next;
      LongVector all =
          fromMemorySegment(SPECIES, src, at, LE)
              .or(fromMemorySegment(SPECIES, src, at + BYTES, LE))
              .or(fromMemorySegment(SPECIES, src, at + PAIR, LE))
              .or(fromMemorySegment(SPECIES, src, at + PAIR + BYTES, LE));
      if (all.compare(NE, 0).anyTrue()) {
        break;
      }
      next += 2 * PAIR;
    }
    return next;
  }

  /** The same for a shifted source, whose vectors end with a word of the next one. */
  static long skipCleanShifted(MemorySegment src, long s, long i, long bytes) {
    guard(src);
    long next = i;
    while (next < bytes - 2 * PAIR + 1) {
      long at = s + next;
      LongVector all =
          fromMemorySegment(SPECIES, src, at, LE)
              .or(fromMemorySegment(SPECIES, src, at + BYTES, LE))
              .or(fromMemorySegment(SPECIES, src, at + PAIR, LE))
              .or(fromMemorySegment(SPECIES, src, at + PAIR + BYTES, LE))
              .or(fromMemorySegment(SPECIES, src, at + PAIR + BYTES + 8, LE));
      if (all.compare(NE, 0).anyTrue()) {
        break;
      }
      next += 2 * PAIR;
    }
    return next;
  }

  static void orAligned(MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    long i = skipClean(src, s, 0, bytes);
    while (i < bytes) {
      i += orAlignedStretches(dst, d + i, src, s + i, bytes - i);
      i = skipClean(src, s, i, bytes);
    }
  }

  static long orAlignedStretches(MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    if (bytes == 0) {
      return 0;
    }
    guard(dst);
    guard(src);
    long i = 0;
    boolean dirty = true;
    while (dirty && i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + Math.min(Math.max(i, SHORT_STRETCH), LONG_STRETCH), bytes);
      for (; i < stop; i += BYTES) {
        LongVector in = fromMemorySegment(SPECIES, src, s + i, LE);
        fromMemorySegment(SPECIES, dst, d + i, LE).or(in).intoMemorySegment(dst, d + i, LE);
        all = all.or(in);
      }
      dirty = all.compare(NE, 0).anyTrue();
    }
    return i;
  }

  static void orShifted(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    long i = skipCleanShifted(src, s, 0, bytes);
    while (i < bytes) {
      i += orShiftedStretches(dst, d + i, src, s + i, bytes - i, shift);
      i = skipCleanShifted(src, s, i, bytes);
    }
  }

  /**
   * Here and in its kin: until a stretch was clean, or to the end. With the scan over what is clean
   * beside its loop C2 has too few registers.
   *
   * @return how many bytes were merged; of those that count, how many bits were new in the upper
   *     half
   */
  static long orShiftedStretches(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    if (bytes == 0) {
      return 0;
    }
    guard(dst);
    guard(src);
    long i = 0;
    boolean dirty = true;
    while (dirty && i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + Math.min(Math.max(i, SHORT_STRETCH), LONG_STRETCH), bytes);
      for (; i < stop; i += BYTES) {
        LongVector in =
            join(
                fromMemorySegment(SPECIES, src, s + i, LE),
                fromMemorySegment(SPECIES, src, s + i + 8, LE),
                shift);
        fromMemorySegment(SPECIES, dst, d + i, LE).or(in).intoMemorySegment(dst, d + i, LE);
        all = all.or(in);
      }
      dirty = all.compare(NE, 0).anyTrue();
    }
    return i;
  }

  private static long orCountAligned(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    long count = 0;
    long i = skipClean(src, s, 0, bytes);
    while (i < bytes) {
      long some = Math.min(bytes - i, MOST);
      long result = orCountAlignedStretches(dst, d + i, src, s + i, some);
      count += result >>> 32;
      i = skipClean(src, s, i + (int) result, bytes);
    }
    return count;
  }

  static long orCountAlignedStretches(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    if (bytes == 0) {
      return 0;
    }
    guard(dst);
    guard(src);
    LongVector count = LongVector.zero(SPECIES);
    long i = 0;
    boolean dirty = true;
    while (dirty && i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + Math.min(Math.max(i, SHORT_STRETCH), LONG_STRETCH), bytes);
      for (; i < stop; i += PAIR) {
        LongVector in = fromMemorySegment(SPECIES, src, s + i, LE);
        LongVector old = fromMemorySegment(SPECIES, dst, d + i, LE);
        old.or(in).intoMemorySegment(dst, d + i, LE);
        LongVector in2 = fromMemorySegment(SPECIES, src, s + i + BYTES, LE);
        LongVector old2 = fromMemorySegment(SPECIES, dst, d + i + BYTES, LE);
        old2.or(in2).intoMemorySegment(dst, d + i + BYTES, LE);
        LongVector fresh = in.and(old.not()).lanewise(BIT_COUNT);
        count = count.add(fresh.add(in2.and(old2.not()).lanewise(BIT_COUNT)));
        all = all.or(in.or(in2));
      }
      dirty = all.compare(NE, 0).anyTrue();
    }
    return count.reduceLanes(VectorOperators.ADD) << 32 | i;
  }

  static long orCountShifted(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    long count = 0;
    long i = skipCleanShifted(src, s, 0, bytes);
    while (i < bytes) {
      long some = Math.min(bytes - i, MOST);
      long result = orCountShiftedStretches(dst, d + i, src, s + i, some, shift);
      count += result >>> 32;
      i = skipCleanShifted(src, s, i + (int) result, bytes);
    }
    return count;
  }

  static long orCountShiftedStretches(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    if (bytes == 0) {
      return 0;
    }
    guard(dst);
    guard(src);
    LongVector count = LongVector.zero(SPECIES);
    long i = 0;
    boolean dirty = true;
    while (dirty && i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + Math.min(Math.max(i, SHORT_STRETCH), LONG_STRETCH), bytes);
      for (; i < stop; i += BYTES) {
        LongVector in =
            join(
                fromMemorySegment(SPECIES, src, s + i, LE),
                fromMemorySegment(SPECIES, src, s + i + 8, LE),
                shift);
        LongVector old = fromMemorySegment(SPECIES, dst, d + i, LE);
        old.or(in).intoMemorySegment(dst, d + i, LE);
        count = count.add(in.and(old.not()).lanewise(BIT_COUNT));
        all = all.or(in);
      }
      dirty = all.compare(NE, 0).anyTrue();
    }
    return count.reduceLanes(VectorOperators.ADD) << 32 | i;
  }

  private static long orCountClearAligned(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    if (dst.scope() != ENDLESS || src.scope() != ENDLESS) {
      long count = orCountAligned(dst, d, src, s, bytes);
      Vectors.fill(src, s, bytes, 0);
      return count;
    }
    long count = 0;
    long i = skipClean(src, s, 0, bytes);
    while (i < bytes) {
      long some = Math.min(bytes - i, MOST);
      long result = orCountClearByAddress(dst.address() + d + i, src.address() + s + i, some);
      count += result >>> 32;
      i = skipClean(src, s, i + (int) result, bytes);
    }
    return count;
  }

  /**
   * By address, as this is bound by its stores and has no time for checks. All loads come first:
   * one that follows a store whose address has the same lowest 12 bits waits for it. The order of
   * the stores is measured.
   */
  static long orCountClearByAddress(long dst, long src, long bytes) {
    if (bytes == 0) {
      return 0;
    }
    LongVector zero = LongVector.zero(SPECIES);
    LongVector count = LongVector.zero(SPECIES);
    long i = 0;
    boolean dirty = true;
    while (dirty && i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      int some = (int) Math.min(Math.min(Math.max(i, SHORT_STRETCH), LONG_STRETCH), bytes - i);
      long s = src + i;
      long d = dst + i;
      for (int done = 0; done < some; done += PAIR) {
        long from = s + done & Long.MAX_VALUE >>> 2;
        long to = d + done & Long.MAX_VALUE >>> 2;
        LongVector in = at(from);
        LongVector in2 = at(from + BYTES);
        LongVector old = at(to);
        LongVector old2 = at(to + BYTES);
        old.or(in).intoMemorySegment(ALL, to, LE);
        old2.or(in2).intoMemorySegment(ALL, to + BYTES, LE);
        zero.intoMemorySegment(ALL, from, LE);
        zero.intoMemorySegment(ALL, from + BYTES, LE);
        LongVector fresh = in.and(old.not()).lanewise(BIT_COUNT);
        count = count.add(fresh.add(in2.and(old2.not()).lanewise(BIT_COUNT)));
        all = all.or(in.or(in2));
      }
      i += some;
      dirty = all.compare(NE, 0).anyTrue();
    }
    return count.reduceLanes(VectorOperators.ADD) << 32 | i;
  }

  static long orCountClearShifted(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    long below = (1L << shift) - 1;
    long outside = src.get(CheckedBitmapOps.WORD, s) & below;
    long count = 0;
    long i = skipCleanShifted(src, s, 0, bytes);
    while (i < bytes) {
      long some = Math.min(bytes - i, MOST);
      long result = orCountClearShiftedStretches(dst, d + i, src, s + i, some, shift);
      count += result >>> 32;
      i = skipCleanShifted(src, s, i + (int) result, bytes);
    }
    src.set(CheckedBitmapOps.WORD, s, src.get(CheckedBitmapOps.WORD, s) | outside);
    src.set(CheckedBitmapOps.WORD, s + bytes, src.get(CheckedBitmapOps.WORD, s + bytes) & ~below);
    return count;
  }

  static long orCountClearShiftedStretches(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    if (bytes == 0) {
      return 0;
    }
    guard(dst);
    guard(src);
    LongVector zero = LongVector.zero(SPECIES);
    LongVector count = LongVector.zero(SPECIES);
    long i = 0;
    boolean dirty = true;
    while (dirty && i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + Math.min(Math.max(i, SHORT_STRETCH), LONG_STRETCH), bytes);
      for (; i < stop; i += BYTES) {
        LongVector in =
            join(
                fromMemorySegment(SPECIES, src, s + i, LE),
                fromMemorySegment(SPECIES, src, s + i + 8, LE),
                shift);
        LongVector old = fromMemorySegment(SPECIES, dst, d + i, LE);
        // The last word read is the next vector's first: it still has the bits above the shift.
        zero.intoMemorySegment(src, s + i, LE);
        old.or(in).intoMemorySegment(dst, d + i, LE);
        count = count.add(in.and(old.not()).lanewise(BIT_COUNT));
        all = all.or(in);
      }
      dirty = all.compare(NE, 0).anyTrue();
    }
    return count.reduceLanes(VectorOperators.ADD) << 32 | i;
  }

  static void andNotAligned(MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    long i = skipClean(src, s, 0, bytes);
    while (i < bytes) {
      i += andNotAlignedStretches(dst, d + i, src, s + i, bytes - i);
      i = skipClean(src, s, i, bytes);
    }
  }

  static long andNotAlignedStretches(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    if (bytes == 0) {
      return 0;
    }
    guard(dst);
    guard(src);
    long i = 0;
    boolean dirty = true;
    while (dirty && i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + Math.min(Math.max(i, SHORT_STRETCH), LONG_STRETCH), bytes);
      for (; i < stop; i += BYTES) {
        LongVector in = fromMemorySegment(SPECIES, src, s + i, LE);
        fromMemorySegment(SPECIES, dst, d + i, LE).and(in.not()).intoMemorySegment(dst, d + i, LE);
        all = all.or(in);
      }
      dirty = all.compare(NE, 0).anyTrue();
    }
    return i;
  }

  static void andNotShifted(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    long i = skipCleanShifted(src, s, 0, bytes);
    while (i < bytes) {
      i += andNotShiftedStretches(dst, d + i, src, s + i, bytes - i, shift);
      i = skipCleanShifted(src, s, i, bytes);
    }
  }

  static long andNotShiftedStretches(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    if (bytes == 0) {
      return 0;
    }
    guard(dst);
    guard(src);
    long i = 0;
    boolean dirty = true;
    while (dirty && i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + Math.min(Math.max(i, SHORT_STRETCH), LONG_STRETCH), bytes);
      for (; i < stop; i += BYTES) {
        LongVector in =
            join(
                fromMemorySegment(SPECIES, src, s + i, LE),
                fromMemorySegment(SPECIES, src, s + i + 8, LE),
                shift);
        fromMemorySegment(SPECIES, dst, d + i, LE).and(in.not()).intoMemorySegment(dst, d + i, LE);
        all = all.or(in);
      }
      dirty = all.compare(NE, 0).anyTrue();
    }
    return i;
  }
}
