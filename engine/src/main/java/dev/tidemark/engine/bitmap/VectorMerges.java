package dev.tidemark.engine.bitmap;

import static dev.tidemark.engine.bitmap.Vectors.BYTES;
import static dev.tidemark.engine.bitmap.Vectors.LE;
import static dev.tidemark.engine.bitmap.Vectors.PAIR;
import static dev.tidemark.engine.bitmap.Vectors.SPECIES;
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
   * How many bytes are merged before asking whether the source was clean all along. Merging goes on
   * without a branch on the data; only after a clean stretch are sources scanned for the next bit,
   * and their destinations not touched.
   */
  private static final long STRETCH = 16384;

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

  /** Where, from {@code i} on, the source may have the next bit: it has none before. */
  private static long skipClean(MemorySegment src, long s, long i, long bytes) {
    guard(src);
    long next = i;
    while (next < bytes - 2 * PAIR + 1) {
      long at = s + next;
      LongVector low =
          fromMemorySegment(SPECIES, src, at, LE)
              .or(fromMemorySegment(SPECIES, src, at + BYTES, LE));
      LongVector high =
          fromMemorySegment(SPECIES, src, at + PAIR, LE)
              .or(fromMemorySegment(SPECIES, src, at + PAIR + BYTES, LE));
      if (low.or(high).compare(NE, 0).anyTrue()) {
        break;
      }
      next += 2 * PAIR;
    }
    return next;
  }

  static void orAligned(MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    guard(dst);
    guard(src);
    long i = 0;
    while (i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + STRETCH, bytes);
      for (; i < stop; i += BYTES) {
        LongVector in = fromMemorySegment(SPECIES, src, s + i, LE);
        fromMemorySegment(SPECIES, dst, d + i, LE).or(in).intoMemorySegment(dst, d + i, LE);
        all = all.or(in);
      }
      if (!all.compare(NE, 0).anyTrue()) {
        i = skipClean(src, s, i, bytes);
      }
    }
  }

  /**
   * Here and in its kin the scan over what is clean stands in the method. C2 inlines a method of
   * its own there by chance only, and a call beside the merging loop makes that slower by 40 %.
   */
  static void orShifted(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    guard(dst);
    guard(src);
    long i = 0;
    while (i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + STRETCH, bytes);
      for (; i < stop; i += BYTES) {
        LongVector in =
            join(
                fromMemorySegment(SPECIES, src, s + i, LE),
                fromMemorySegment(SPECIES, src, s + i + 8, LE),
                shift);
        fromMemorySegment(SPECIES, dst, d + i, LE).or(in).intoMemorySegment(dst, d + i, LE);
        all = all.or(in);
      }
      if (!all.compare(NE, 0).anyTrue()) {
        while (i < bytes - 2 * PAIR + 1) {
          LongVector low =
              fromMemorySegment(SPECIES, src, s + i, LE)
                  .or(fromMemorySegment(SPECIES, src, s + i + BYTES, LE));
          LongVector high =
              fromMemorySegment(SPECIES, src, s + i + PAIR, LE)
                  .or(fromMemorySegment(SPECIES, src, s + i + PAIR + BYTES, LE));
          if (low.or(high)
              .or(fromMemorySegment(SPECIES, src, s + i + PAIR + BYTES + 8, LE))
              .compare(NE, 0)
              .anyTrue()) {
            break;
          }
          i += 2 * PAIR;
        }
      }
    }
  }

  private static long orCountAligned(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    guard(dst);
    guard(src);
    LongVector count = LongVector.zero(SPECIES);
    long i = 0;
    while (i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + STRETCH, bytes);
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
      if (!all.compare(NE, 0).anyTrue()) {
        i = skipClean(src, s, i, bytes);
      }
    }
    return count.reduceLanes(VectorOperators.ADD);
  }

  static long orCountShifted(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    guard(dst);
    guard(src);
    LongVector count = LongVector.zero(SPECIES);
    long i = 0;
    while (i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + STRETCH, bytes);
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
      if (!all.compare(NE, 0).anyTrue()) {
        while (i < bytes - 2 * PAIR + 1) {
          LongVector low =
              fromMemorySegment(SPECIES, src, s + i, LE)
                  .or(fromMemorySegment(SPECIES, src, s + i + BYTES, LE));
          LongVector high =
              fromMemorySegment(SPECIES, src, s + i + PAIR, LE)
                  .or(fromMemorySegment(SPECIES, src, s + i + PAIR + BYTES, LE));
          if (low.or(high)
              .or(fromMemorySegment(SPECIES, src, s + i + PAIR + BYTES + 8, LE))
              .compare(NE, 0)
              .anyTrue()) {
            break;
          }
          i += 2 * PAIR;
        }
      }
    }
    return count.reduceLanes(VectorOperators.ADD);
  }

  private static long orCountClearAligned(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    guard(dst);
    guard(src);
    LongVector zero = LongVector.zero(SPECIES);
    LongVector count = LongVector.zero(SPECIES);
    long i = 0;
    while (i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + STRETCH, bytes);
      for (; i < stop; i += PAIR) {
        LongVector in = fromMemorySegment(SPECIES, src, s + i, LE);
        zero.intoMemorySegment(src, s + i, LE);
        LongVector old = fromMemorySegment(SPECIES, dst, d + i, LE);
        old.or(in).intoMemorySegment(dst, d + i, LE);
        LongVector in2 = fromMemorySegment(SPECIES, src, s + i + BYTES, LE);
        zero.intoMemorySegment(src, s + i + BYTES, LE);
        LongVector old2 = fromMemorySegment(SPECIES, dst, d + i + BYTES, LE);
        old2.or(in2).intoMemorySegment(dst, d + i + BYTES, LE);
        LongVector fresh = in.and(old.not()).lanewise(BIT_COUNT);
        count = count.add(fresh.add(in2.and(old2.not()).lanewise(BIT_COUNT)));
        all = all.or(in.or(in2));
      }
      if (!all.compare(NE, 0).anyTrue()) {
        i = skipClean(src, s, i, bytes);
      }
    }
    return count.reduceLanes(VectorOperators.ADD);
  }

  static long orCountClearShifted(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    guard(dst);
    guard(src);
    long below = (1L << shift) - 1;
    long outside = src.get(CheckedBitmapOps.WORD, s) & below;
    LongVector zero = LongVector.zero(SPECIES);
    LongVector count = LongVector.zero(SPECIES);
    long i = 0;
    while (i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + STRETCH, bytes);
      for (; i < stop; i += BYTES) {
        LongVector in =
            join(
                fromMemorySegment(SPECIES, src, s + i, LE),
                fromMemorySegment(SPECIES, src, s + i + 8, LE),
                shift);
        // The last word read is the next vector's first: it still has the bits above the shift.
        zero.intoMemorySegment(src, s + i, LE);
        LongVector old = fromMemorySegment(SPECIES, dst, d + i, LE);
        old.or(in).intoMemorySegment(dst, d + i, LE);
        count = count.add(in.and(old.not()).lanewise(BIT_COUNT));
        all = all.or(in);
      }
      if (!all.compare(NE, 0).anyTrue()) {
        while (i < bytes - 2 * PAIR + 1) {
          LongVector low =
              fromMemorySegment(SPECIES, src, s + i, LE)
                  .or(fromMemorySegment(SPECIES, src, s + i + BYTES, LE));
          LongVector high =
              fromMemorySegment(SPECIES, src, s + i + PAIR, LE)
                  .or(fromMemorySegment(SPECIES, src, s + i + PAIR + BYTES, LE));
          if (low.or(high)
              .or(fromMemorySegment(SPECIES, src, s + i + PAIR + BYTES + 8, LE))
              .compare(NE, 0)
              .anyTrue()) {
            break;
          }
          i += 2 * PAIR;
        }
      }
    }
    src.set(CheckedBitmapOps.WORD, s, src.get(CheckedBitmapOps.WORD, s) | outside);
    src.set(CheckedBitmapOps.WORD, s + bytes, src.get(CheckedBitmapOps.WORD, s + bytes) & ~below);
    return count.reduceLanes(VectorOperators.ADD);
  }

  static void andNotAligned(MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    guard(dst);
    guard(src);
    long i = 0;
    while (i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + STRETCH, bytes);
      for (; i < stop; i += BYTES) {
        LongVector in = fromMemorySegment(SPECIES, src, s + i, LE);
        fromMemorySegment(SPECIES, dst, d + i, LE).and(in.not()).intoMemorySegment(dst, d + i, LE);
        all = all.or(in);
      }
      if (!all.compare(NE, 0).anyTrue()) {
        i = skipClean(src, s, i, bytes);
      }
    }
  }

  static void andNotShifted(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    guard(dst);
    guard(src);
    long i = 0;
    while (i < bytes) {
      LongVector all = LongVector.zero(SPECIES);
      long stop = Math.min(i + STRETCH, bytes);
      for (; i < stop; i += BYTES) {
        LongVector in =
            join(
                fromMemorySegment(SPECIES, src, s + i, LE),
                fromMemorySegment(SPECIES, src, s + i + 8, LE),
                shift);
        fromMemorySegment(SPECIES, dst, d + i, LE).and(in.not()).intoMemorySegment(dst, d + i, LE);
        all = all.or(in);
      }
      if (!all.compare(NE, 0).anyTrue()) {
        while (i < bytes - 2 * PAIR + 1) {
          LongVector low =
              fromMemorySegment(SPECIES, src, s + i, LE)
                  .or(fromMemorySegment(SPECIES, src, s + i + BYTES, LE));
          LongVector high =
              fromMemorySegment(SPECIES, src, s + i + PAIR, LE)
                  .or(fromMemorySegment(SPECIES, src, s + i + PAIR + BYTES, LE));
          if (low.or(high)
              .or(fromMemorySegment(SPECIES, src, s + i + PAIR + BYTES + 8, LE))
              .compare(NE, 0)
              .anyTrue()) {
            break;
          }
          i += 2 * PAIR;
        }
      }
    }
  }
}
