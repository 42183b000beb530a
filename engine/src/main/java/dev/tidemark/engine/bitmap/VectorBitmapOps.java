package dev.tidemark.engine.bitmap;

import static jdk.incubator.vector.LongVector.fromMemorySegment;
import static jdk.incubator.vector.VectorOperators.BIT_COUNT;
import static jdk.incubator.vector.VectorOperators.LSHL;
import static jdk.incubator.vector.VectorOperators.LSHR;
import static jdk.incubator.vector.VectorOperators.LT;
import static jdk.incubator.vector.VectorOperators.NE;
import static jdk.incubator.vector.VectorOperators.OR;
import static jdk.incubator.vector.VectorOperators.UMAX;
import static jdk.incubator.vector.VectorOperators.XOR;
import static jdk.incubator.vector.VectorOperators.ZERO_EXTEND_B2I;

import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteOrder;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.LongVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;

/**
 * The vector twin: whole vectors of the destination here, the edges of the range by {@link
 * ScalarBitmapOps}. Only {@link Bitmaps} may load this class, once it knows that the incubator
 * module is there.
 *
 * <p>Each kernel is one static method that begins with {@link #guard}, because a vector that
 * crosses a call is boxed. C2 always inlines the JDK's methods on vectors; ours it inlines where it
 * finds the place hot, and elsewhere only while their own code is small, which is chance. So
 * kernels load, store and test vectors by the JDK's.
 */
final class VectorBitmapOps extends CheckedBitmapOps {
  // A species that is no constant costs a factor of ten and boxes every vector.
  private static final VectorSpecies<Long> SPECIES = LongVector.SPECIES_PREFERRED;
  private static final VectorSpecies<Integer> INTS = IntVector.SPECIES_PREFERRED;
  private static final int BYTES = SPECIES.vectorByteSize();

  /** Vectors are taken in pairs, as an addition to one sum has to wait for the last. */
  private static final int PAIR = 2 * BYTES;

  /**
   * How many bytes are merged before asking whether the source was clean all along. Merging goes on
   * without a branch on the data; only after a clean stretch are sources scanned for the next bit,
   * and their destinations not touched.
   */
  private static final long STRETCH = 16384;

  /** The scope of memory that no arena closes. */
  private static final MemorySegment.Scope ENDLESS = Arena.global().scope();

  /**
   * All addresses. Of a segment of constant size C2 knows that an index with few enough bits lies
   * in it, and has nothing to check in a loop. Only for memory of {@link #ENDLESS} scope, in whose
   * bounds a range was found to be: for another a check would find out that it was closed.
   */
  private static final MemorySegment ALL = Libc.memory(0, Long.MAX_VALUE);

  /** Width of a vector in bits. */
  static final int WIDTH = SPECIES.vectorBitSize();

  /** Bitmaps of more bytes than this are out of cache. */
  private static final long FAR = 1 << 20;

  /** From more named lines than this, of 64, all are read. */
  private static final int MANY = 8;

  private static final VectorSpecies<Integer> PLACE = IntVector.SPECIES_512;
  private static final int PLACES = PLACE.length();
  private static final VectorSpecies<Byte> BIT = ByteVector.SPECIES_512;
  private static final ByteVector BITS_UP = ByteVector.zero(BIT).addIndex(1);

  /** Where the words of a line begin, in bits. */
  private static final LongVector WORD_PLACES = LongVector.zero(SPECIES).addIndex(64);

  /** Bytes in a line of a summary: what one of its bits stands for. */
  private static final int LINE = 64;

  private static final long TOPS = 0x8080808080808080L;
  private static final long LOW_16 = 0x0000FFFF0000FFFFL;
  private static final long LOW_32 = 0xFFFFFFFFL;

  private static final ByteOrder LE = ByteOrder.LITTLE_ENDIAN;

  /** What two threads have to know of a summary that they make together. */
  private static final class Summary implements SecondThread.Pass {
    private long map;
    private long lines;

    long run(SecondThread second, long map, long bytes, long lines) {
      this.map = map;
      this.lines = lines;
      try {
        return second.run(this, bytes);
      } finally {
        second.release();
      }
    }

    @Override
    public long part(long from, long end) {
      return summarizeLines(map + from, end - from, lines + (from >>> 9));
    }
  }

  /** The same of a merge. */
  private static final class Merge implements SecondThread.Pass {
    private boolean clear;
    private MemorySegment dst;
    private long d;
    private MemorySegment src;
    private long s;

    long run(
        SecondThread second,
        boolean clear,
        MemorySegment dst,
        long d,
        MemorySegment src,
        long s,
        long bytes) {
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
  }

  private final Summary summary = new Summary();
  private final Merge merge = new Merge();
  private final boolean compressesBytes;

  /**
   * @param compressesBytes whether the processor has an instruction for {@link ByteVector#compress}
   *     at the width of a line (AVX512_VBMI2)
   */
  VectorBitmapOps(boolean compressesBytes) {
    this.compressesBytes = compressesBytes;
  }

  /** Words that begin {@code shift} bits, 1 to 63, into the lower ones. */
  private static LongVector join(LongVector low, LongVector high, int shift) {
    return low.lanewise(LSHR, shift).or(high.lanewise(LSHL, 64 - shift));
  }

  /**
   * Tells the compiler what kind of segment this call site sees. Without it, a heap segment seen
   * anywhere in the process by the JDK's shared access code makes kernels five times slower.
   */
  private static void guard(MemorySegment map) {
    if (!map.isNative()) {
      throw new AssertionError("heap segment in a kernel");
    }
  }

  /** Bits before the first whole word of a destination. */
  private static long head(long bit, long bits) {
    return Math.min(-bit & 63, bits);
  }

  /** Bytes of whole pairs of vectors in that many bits. */
  private static long body(long bits) {
    return bits / (8L * PAIR) * PAIR;
  }

  @Override
  void doOr(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    long head = head(dstBit, bits);
    long body = body(bits - head);
    ScalarBitmapOps.orRange(dst, dstBit, src, srcBit, head);
    if (body != 0) {
      long dstByte = dstBit + head >>> 6 << 3;
      long srcByte = srcBit + head >>> 6 << 3;
      int shift = (int) (srcBit + head & 63);
      if (shift == 0) {
        orAligned(dst, dstByte, src, srcByte, body);
      } else {
        orShifted(dst, dstByte, src, srcByte, body, shift);
      }
    }
    long done = head + (body << 3);
    ScalarBitmapOps.orRange(dst, dstBit + done, src, srcBit + done, bits - done);
  }

  /** Where, from {@code i} on, the source may have the next bit: it has none before. */
  private static long skipClean(MemorySegment src, long s, long i, long bytes) {
    guard(src);
    long next = i;
    while (next <= bytes - 2 * PAIR) {
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

  private static void orAligned(MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
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
  private static void orShifted(
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
        while (i <= bytes - 2 * PAIR) {
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

  @Override
  long doOrCount(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    long head = head(dstBit, bits);
    long body = body(bits - head);
    long count = head == 0 ? 0 : ScalarBitmapOps.orCountRange(dst, dstBit, src, srcBit, head);
    if (body != 0) {
      long dstByte = dstBit + head >>> 6 << 3;
      long srcByte = srcBit + head >>> 6 << 3;
      int shift = (int) (srcBit + head & 63);
      count +=
          shift == 0
              ? orCountBody(false, dst, dstByte, src, srcByte, body)
              : orCountShifted(dst, dstByte, src, srcByte, body, shift);
    }
    long done = head + (body << 3);
    if (done == bits) {
      return count;
    }
    return count
        + ScalarBitmapOps.orCountRange(dst, dstBit + done, src, srcBit + done, bits - done);
  }

  private long orCountBody(
      boolean clear, MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
    SecondThread second = SecondThread.take(bytes, dst, src);
    if (second != null) {
      return merge.run(second, clear, dst, d, src, s, bytes);
    }
    return clear
        ? orCountClearAligned(dst, d, src, s, bytes)
        : orCountAligned(dst, d, src, s, bytes);
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

  private static long orCountShifted(
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
        while (i <= bytes - 2 * PAIR) {
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

  @Override
  long doOrCountClear(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    long head = head(dstBit, bits);
    long body = body(bits - head);
    long count = head == 0 ? 0 : ScalarBitmapOps.orCountClearRange(dst, dstBit, src, srcBit, head);
    if (body != 0) {
      long dstByte = dstBit + head >>> 6 << 3;
      long srcByte = srcBit + head >>> 6 << 3;
      int shift = (int) (srcBit + head & 63);
      count +=
          shift == 0
              ? orCountBody(true, dst, dstByte, src, srcByte, body)
              : orCountClearShifted(dst, dstByte, src, srcByte, body, shift);
    }
    long done = head + (body << 3);
    if (done == bits) {
      return count;
    }
    return count
        + ScalarBitmapOps.orCountClearRange(dst, dstBit + done, src, srcBit + done, bits - done);
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

  private static long orCountClearShifted(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes, int shift) {
    guard(dst);
    guard(src);
    long below = (1L << shift) - 1;
    long outside = src.get(WORD, s) & below;
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
        while (i <= bytes - 2 * PAIR) {
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
    src.set(WORD, s, src.get(WORD, s) | outside);
    src.set(WORD, s + bytes, src.get(WORD, s + bytes) & ~below);
    return count.reduceLanes(VectorOperators.ADD);
  }

  @Override
  void doAndNot(MemorySegment dst, long dstBit, MemorySegment src, long srcBit, long bits) {
    long head = head(dstBit, bits);
    long body = body(bits - head);
    ScalarBitmapOps.andNotRange(dst, dstBit, src, srcBit, head);
    if (body != 0) {
      long dstByte = dstBit + head >>> 6 << 3;
      long srcByte = srcBit + head >>> 6 << 3;
      int shift = (int) (srcBit + head & 63);
      if (shift == 0) {
        andNotAligned(dst, dstByte, src, srcByte, body);
      } else {
        andNotShifted(dst, dstByte, src, srcByte, body, shift);
      }
    }
    long done = head + (body << 3);
    ScalarBitmapOps.andNotRange(dst, dstBit + done, src, srcBit + done, bits - done);
  }

  private static void andNotAligned(
      MemorySegment dst, long d, MemorySegment src, long s, long bytes) {
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

  private static void andNotShifted(
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
        while (i <= bytes - 2 * PAIR) {
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

  @Override
  long doCardinality(MemorySegment map, long bit, long bits) {
    long head = head(bit, bits);
    long body = body(bits - head);
    long done = head + (body << 3);
    return ScalarBitmapOps.cardinalityRange(map, bit, head)
        + (body == 0 ? 0 : cardinalityBody(map, bit + head >>> 6 << 3, body))
        + ScalarBitmapOps.cardinalityRange(map, bit + done, bits - done);
  }

  private static long cardinalityBody(MemorySegment map, long offset, long bytes) {
    guard(map);
    LongVector count = LongVector.zero(SPECIES);
    for (long i = offset; i < offset + bytes; i += PAIR) {
      LongVector low = fromMemorySegment(SPECIES, map, i, LE).lanewise(BIT_COUNT);
      count =
          count.add(low.add(fromMemorySegment(SPECIES, map, i + BYTES, LE).lanewise(BIT_COUNT)));
    }
    return count.reduceLanes(VectorOperators.ADD);
  }

  @Override
  boolean doAny(MemorySegment map, long bit, long bits) {
    long head = head(bit, bits);
    long body = body(bits - head);
    long done = head + (body << 3);
    long first = bit + head >>> 6 << 3;
    return ScalarBitmapOps.anyRange(map, bit, head)
        || firstSetVector(map, first, body) < first + body
        || ScalarBitmapOps.anyRange(map, bit + done, bits - done);
  }

  /** Where the first vector lies that has a bit; the end if there is none. */
  private static long firstSetVector(MemorySegment map, long offset, long bytes) {
    guard(map);
    long i = offset;
    while (i < offset + bytes && !fromMemorySegment(SPECIES, map, i, LE).compare(NE, 0).anyTrue()) {
      i += BYTES;
    }
    return i;
  }

  /** Where the first vector lies that lacks a bit; the end if there is none. */
  private static long firstNotFullVector(MemorySegment map, long offset, long bytes) {
    guard(map);
    long i = offset;
    while (i < offset + bytes
        && !fromMemorySegment(SPECIES, map, i, LE).compare(NE, -1).anyTrue()) {
      i += BYTES;
    }
    return i;
  }

  @Override
  void doSet(MemorySegment map, long bit, long bits) {
    long head = head(bit, bits);
    long body = body(bits - head);
    long done = head + (body << 3);
    ScalarBitmapOps.setRange(map, bit, head);
    fill(map, bit + head >>> 6 << 3, body, -1);
    ScalarBitmapOps.setRange(map, bit + done, bits - done);
  }

  @Override
  void doClear(MemorySegment map, long bit, long bits) {
    long head = head(bit, bits);
    long body = body(bits - head);
    long done = head + (body << 3);
    ScalarBitmapOps.clearRange(map, bit, head);
    fill(map, bit + head >>> 6 << 3, body, 0);
    ScalarBitmapOps.clearRange(map, bit + done, bits - done);
  }

  private static void fill(MemorySegment map, long offset, long bytes, long word) {
    guard(map);
    LongVector value = LongVector.broadcast(SPECIES, word);
    for (long i = offset; i < offset + bytes; i += BYTES) {
      value.intoMemorySegment(map, i, LE);
    }
  }

  @Override
  long doNextSet(MemorySegment map, long from, long end) {
    long head = head(from, end - from);
    long found = ScalarBitmapOps.nextSetRange(map, from, from + head);
    if (found < from + head || from + head == end) {
      return found;
    }
    long vector = firstSetVector(map, from + head >>> 6 << 3, body(end - from - head));
    return ScalarBitmapOps.nextSetRange(map, vector << 3, end);
  }

  @Override
  long doNextClear(MemorySegment map, long from, long end) {
    long head = head(from, end - from);
    long found = ScalarBitmapOps.nextClearRange(map, from, from + head);
    if (found < from + head || from + head == end) {
      return found;
    }
    long vector = firstNotFullVector(map, from + head >>> 6 << 3, body(end - from - head));
    return ScalarBitmapOps.nextClearRange(map, vector << 3, end);
  }

  @Override
  long doZeroPages(MemorySegment memory, long offset, int pages) {
    if (memory.scope() != ENDLESS) {
      return ScalarBitmapOps.zeroPagesRange(memory, offset, pages);
    }
    return zeroPagesByAddress(memory.address() + offset, pages);
  }

  /** Memory at an address of two bits less than a segment may have. */
  private static LongVector at(long address) {
    return fromMemorySegment(SPECIES, ALL, address & Long.MAX_VALUE >>> 1, LE);
  }

  /**
   * The greatest of all is 0 only if all are, and of a load and a maximum C2 makes one instruction,
   * in the order written, so that many lines are under way at a time; of ors it makes one for
   * three, and loads in an order of its own. Eight vectors a round, written out, are so much that
   * it does not inline all this where registers are short: out of cache that is slower by a fifth.
   */
  private static long zeroPagesByAddress(long first, int pages) {
    long zero = 0;
    for (int page = 0; page < pages; page++) {
      long address = first + ((long) page << Pages.SHIFT) & Long.MAX_VALUE >>> 2;
      IntVector even = IntVector.fromMemorySegment(INTS, ALL, address, LE);
      if (even.compare(NE, 0).anyTrue()) {
        continue;
      }
      IntVector odd = even;
      for (int i = 0; i < Pages.SIZE; i += 8 * BYTES) {
        long at = address + i & Long.MAX_VALUE >>> 2;
        even = even.lanewise(UMAX, IntVector.fromMemorySegment(INTS, ALL, at, LE));
        odd = odd.lanewise(UMAX, IntVector.fromMemorySegment(INTS, ALL, at + BYTES, LE));
        even = even.lanewise(UMAX, IntVector.fromMemorySegment(INTS, ALL, at + 2 * BYTES, LE));
        odd = odd.lanewise(UMAX, IntVector.fromMemorySegment(INTS, ALL, at + 3 * BYTES, LE));
        even = even.lanewise(UMAX, IntVector.fromMemorySegment(INTS, ALL, at + 4 * BYTES, LE));
        odd = odd.lanewise(UMAX, IntVector.fromMemorySegment(INTS, ALL, at + 5 * BYTES, LE));
        even = even.lanewise(UMAX, IntVector.fromMemorySegment(INTS, ALL, at + 6 * BYTES, LE));
        odd = odd.lanewise(UMAX, IntVector.fromMemorySegment(INTS, ALL, at + 7 * BYTES, LE));
      }
      // Without a branch, as it would be guessed wrongly.
      zero |= even.or(odd).compare(NE, 0).toLong() - 1 >>> 63 << page;
    }
    return zero;
  }

  @Override
  long doSummarize(MemorySegment map, long words, MemorySegment lines) {
    long body = words >>> 9 << 9;
    long count;
    if (BYTES == LINE && map.scope() == ENDLESS && lines.scope() == ENDLESS) {
      SecondThread second = SecondThread.take(body << 3, map, lines);
      count =
          second == null
              ? summarizeLines(map.address(), body << 3, lines.address())
              : summary.run(second, map.address(), body << 3, lines.address());
    } else {
      count = summarizeParts(map, body << 3, lines);
    }
    return count + ScalarBitmapOps.summarizeFrom(map, body, words, lines);
  }

  /**
   * Where a vector is a line, by address. The counts of eight lines are the bytes of one vector,
   * the first line's the lowest: what is not 0 there names the line, and two additions count all
   * eight. Once for 64 lines the lanes are joined. No branch on what is in them, as it would be
   * guessed wrongly; and none for a check of the range, which C2 leaves in a loop with another
   * branch.
   */
  private static long summarizeLines(long map, long bytes, long lines) {
    LongVector count = LongVector.zero(SPECIES);
    LongVector sums = LongVector.zero(SPECIES);
    LongVector named = LongVector.zero(SPECIES);
    for (long done = 0; done < bytes; done += 8 * LINE) {
      long at = map + done & Long.MAX_VALUE >>> 2;
      LongVector a = at(at).lanewise(BIT_COUNT);
      LongVector b = at(at + LINE).lanewise(BIT_COUNT);
      LongVector c = at(at + 2 * LINE).lanewise(BIT_COUNT);
      LongVector d = at(at + 3 * LINE).lanewise(BIT_COUNT);
      LongVector e = at(at + 4 * LINE).lanewise(BIT_COUNT);
      LongVector f = at(at + 5 * LINE).lanewise(BIT_COUNT);
      LongVector g = at(at + 6 * LINE).lanewise(BIT_COUNT);
      LongVector h = at(at + 7 * LINE).lanewise(BIT_COUNT);
      LongVector even = a.or(c.lanewise(LSHL, 16));
      even = even.or(e.lanewise(LSHL, 32).or(g.lanewise(LSHL, 48)));
      LongVector odd = b.or(d.lanewise(LSHL, 16));
      odd = odd.or(f.lanewise(LSHL, 32).or(h.lanewise(LSHL, 48)));
      sums = sums.add(even.add(odd));
      LongVector counts = even.or(odd.lanewise(LSHL, 8));
      named = named.lanewise(LSHR, 1).or(counts.add(~TOPS).and(TOPS));
      if ((done & 7 << 9) == 7 << 9) {
        LongVector two = sums.and(LOW_16).add(sums.lanewise(LSHR, 16).and(LOW_16));
        count = count.add(two.and(LOW_32).add(two.lanewise(LSHR, 32)));
        // Bit i of byte k becomes bit k of byte i (Hacker's Delight, 7-3).
        long set = named.reduceLanes(OR);
        long swap = (set ^ set >>> 7) & 0x00AA00AA00AA00AAL;
        set ^= swap ^ swap << 7;
        swap = (set ^ set >>> 14) & 0x0000CCCC0000CCCCL;
        set ^= swap ^ swap << 14;
        swap = (set ^ set >>> 28) & 0x00000000F0F0F0F0L;
        long to = lines + (done >>> 12 << 3) & Long.MAX_VALUE >>> 2;
        ALL.set(WORD, to, set ^ swap ^ swap << 28);
        sums = LongVector.zero(SPECIES);
        named = LongVector.zero(SPECIES);
      }
    }
    return count.reduceLanes(VectorOperators.ADD);
  }

  /** Where a line is some vectors, or memory may be closed meanwhile. */
  private static long summarizeParts(MemorySegment map, long bytes, MemorySegment lines) {
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
      lines.set(WORD, block >>> 9, summary);
    }
    return count.reduceLanes(VectorOperators.ADD);
  }

  @Override
  void doClearLines(MemorySegment map, long words, MemorySegment lines) {
    long whole = words >>> 3;
    clearWholeLines(map, whole, lines);
    if ((words & 7) != 0 && ScalarBitmapOps.anyRange(lines, whole, 1)) {
      ScalarBitmapOps.clearRange(map, whole << 9, (words & 7) << 6);
    }
  }

  private static void clearWholeLines(MemorySegment map, long count, MemorySegment lines) {
    guard(map);
    guard(lines);
    LongVector zero = LongVector.zero(SPECIES);
    for (long first = 0; first < count; first += 64) {
      if (BYTES == LINE && (first & 511) == 0 && namesNone(lines, first, count)) {
        first += 512 - 64;
        continue;
      }
      long left = lines.get(WORD, first >>> 3);
      if (count - first < 64) {
        left &= (1L << count) - 1;
      }
      if (left == -1) {
        fill(map, first << 6, 64 * LINE, 0);
        continue;
      }
      for (; left != 0; left &= left - 1) {
        long offset = first + Long.numberOfTrailingZeros(left) << 6;
        for (int i = 0; i < LINE; i += BYTES) {
          zero.intoMemorySegment(map, offset + i, LE);
        }
      }
    }
  }

  @Override
  long doOrLines(MemorySegment dst, MemorySegment src, long words, MemorySegment lines) {
    long whole = words >>> 3;
    long count = orWholeLines(dst, src, whole, lines);
    if ((words & 7) != 0 && ScalarBitmapOps.anyRange(lines, whole, 1)) {
      count += ScalarBitmapOps.orCountRange(dst, whole << 9, src, whole << 9, (words & 7) << 6);
    }
    return count;
  }

  private static long orWholeLines(
      MemorySegment dst, MemorySegment src, long count, MemorySegment lines) {
    guard(dst);
    guard(src);
    guard(lines);
    LongVector set = LongVector.zero(SPECIES);
    for (long first = 0; first < count; first += 64) {
      long left = lines.get(WORD, first >>> 3);
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

  @Override
  int listRuns(
      MemorySegment map,
      MemorySegment lines,
      long base,
      long end,
      int[] ends,
      int n,
      long[] edges,
      int[] named) {
    return BYTES == LINE
        ? listRunsOfLines(compressesBytes, map, lines, base, end, ends, n, edges, named)
        : listRunsOfParts(map, lines, base, end, ends, n, edges);
  }

  /**
   * Where a vector is a line. First which lines to look at, then the words of many of them in which
   * a run starts or stops, then the places in each of those; none of it with a branch on the data.
   */
  private static int listRunsOfLines(
      boolean byBytes,
      MemorySegment map,
      MemorySegment lines,
      long base,
      long end,
      int[] ends,
      int before,
      long[] edges,
      int[] named) {
    int n = before;
    boolean far = map.byteSize() > FAR && lines != null;
    while (edges[RunCursor.LINE] < end && n < RunCursor.ENOUGH) {
      if (edges[RunCursor.WORD] < edges[RunCursor.FOUND]) {
        int from = (int) edges[RunCursor.WORD];
        int to = (int) Math.min(from + RunCursor.LISTING, edges[RunCursor.FOUND]);
        n = listWords(byBytes, edges, from, to, base, ends, n);
        goOn(edges, to);
      } else if (edges[RunCursor.NEXT] < edges[RunCursor.COUNT]) {
        edges[RunCursor.FOUND] = collectWords(map, named, n & 1, edges);
        goOn(edges, 0);
      } else if (edges[RunCursor.UNNAMED] < end) {
        int words = collectLines(lines, end, edges);
        if (far && words != 0) {
          readAhead(map, end, words, edges);
        }
        edges[RunCursor.NEXT] = 0;
        edges[RunCursor.COUNT] = listWords(byBytes, edges, 0, words, 0, named, 0);
      } else {
        if ((n & 1) != 0) {
          ends[n++] = (int) ((edges[RunCursor.LINE] << 9) - base);
        }
        edges[RunCursor.LINE] = end;
      }
    }
    return n;
  }

  private static void goOn(long[] edges, int word) {
    edges[RunCursor.WORD] = word;
    edges[RunCursor.LINE] =
        word < edges[RunCursor.FOUND]
            ? edges[RunCursor.PLACES + word] >>> 9
            : edges[RunCursor.BEHIND];
  }

  /** Whether a whole vector of the summary names no line. */
  private static boolean namesNone(MemorySegment lines, long line, long end) {
    guard(lines);
    return end - line >= 512
        && !fromMemorySegment(SPECIES, lines, line >>> 3, LE).compare(NE, 0).anyTrue();
  }

  /** Collects words of the summary that name lines, and the lines that they begin with. */
  private static int collectLines(MemorySegment lines, long end, long[] edges) {
    long line = edges[RunCursor.UNNAMED];
    int words = 0;
    while (line < end && words < RunCursor.NAMING) {
      if (lines != null && (line & 511) == 0 && end - line >= 512) {
        LongVector eight = fromMemorySegment(SPECIES, lines, line >>> 3, LE);
        VectorMask<Long> set = eight.compare(NE, 0);
        long some = set.toLong();
        if (some != 0) {
          LongVector places = WORD_PLACES.add(line).compress(set);
          eight.compress(set).intoArray(edges, RunCursor.EDGES + words);
          places.intoArray(edges, RunCursor.PLACES + words);
          words += Long.bitCount(some);
        }
        line += 512;
      } else {
        long left = RunCursor.named(lines, line, end);
        edges[RunCursor.EDGES + words] = left;
        edges[RunCursor.PLACES + words] = line;
        words += left == 0 ? 0 : 1;
        line = Math.min((line | 63) + 1, end);
      }
    }
    edges[RunCursor.UNNAMED] = line;
    return words;
  }

  /**
   * Reads the lines that come next, out of memory, before they are looked at. A load that misses
   * the cache there holds up what follows; here all of them are under way at the same time.
   */
  private static void readAhead(MemorySegment map, long end, int words, long[] edges) {
    guard(map);
    LongVector all = LongVector.zero(SPECIES);
    long some = 0;
    for (int i = 0; i < words; i++) {
      long left = edges[RunCursor.EDGES + i];
      long first = edges[RunCursor.PLACES + i];
      if (Long.bitCount(left) > MANY) {
        // In order, as the prefetcher likes it.
        long behind = Math.min(first + 64, end) << 6;
        for (long at = first << 6; at < behind; at += LINE) {
          all = all.or(fromMemorySegment(SPECIES, map, at, LE));
        }
      } else {
        for (; left != 0; left &= left - 1) {
          some |= map.get(WORD, first + Long.numberOfTrailingZeros(left) << 6);
        }
      }
    }
    // Somewhere, or else the compiler would leave the loads out.
    edges[RunCursor.READ] = some | all.lane(0);
  }

  /**
   * Collects words with edges, and where they are, from line to line.
   *
   * @param open 1 if a run is open, 0 if not
   */
  private static int collectWords(MemorySegment map, int[] named, long open, long[] edges) {
    guard(map);
    long low = open;
    long next = edges[RunCursor.BEHIND];
    int i = (int) edges[RunCursor.NEXT];
    int end = (int) Math.min(edges[RunCursor.COUNT], i + RunCursor.LINES);
    int words = 0;
    while (i < end) {
      long changed = -1;
      for (; i < end && changed != 0; i++) {
        long line = named[i];
        if ((next - line & -low) != 0) {
          // The run ended with the line before, as the one behind it is not named.
          edges[RunCursor.EDGES + words] = 1;
          edges[RunCursor.PLACES + words] = next << 9;
          words++;
          low = 0;
        }
        LongVector bits = fromMemorySegment(SPECIES, map, line << 6, LE);
        long tops = bits.compare(LT, 0).toLong();
        LongVector edge = bits.lanewise(XOR, bits.lanewise(LSHL, 1));
        edge = edge.lanewise(XOR, 1, VectorMask.fromLong(SPECIES, tops << 1 | low));
        low = tops >>> 7;
        next = line + 1;
        VectorMask<Long> set = edge.compare(NE, 0);
        changed = set.toLong();
        LongVector places = WORD_PLACES.add(line << 9).compress(set);
        edge.compress(set).intoArray(edges, RunCursor.EDGES + words);
        places.intoArray(edges, RunCursor.PLACES + words);
        words += Long.bitCount(changed);
      }
      if (changed == 0) {
        // Inside of a long run, which may go on for many whole lines.
        int inside = skipFull(map, named, i, end, next);
        next += inside - i;
        i = inside;
      }
    }
    edges[RunCursor.BEHIND] = next;
    edges[RunCursor.NEXT] = i;
    return words;
  }

  /** Where in the list, from {@code at} on, the lines that follow each other are no longer full. */
  private static int skipFull(MemorySegment map, int[] named, int at, int end, long line) {
    guard(map);
    int i = at;
    long next = line;
    while (i + 4 <= end && named[i + 3] == next + 3) {
      LongVector low =
          fromMemorySegment(SPECIES, map, next << 6, LE)
              .and(fromMemorySegment(SPECIES, map, (next << 6) + LINE, LE));
      LongVector high =
          fromMemorySegment(SPECIES, map, (next << 6) + 2 * LINE, LE)
              .and(fromMemorySegment(SPECIES, map, (next << 6) + 3 * LINE, LE));
      if (low.and(high).compare(NE, -1).anyTrue()) {
        break;
      }
      i += 4;
      next += 4;
    }
    return i;
  }

  private static int listWords(
      boolean byBytes, long[] edges, int from, int to, long base, int[] ends, int n) {
    return byBytes
        ? listWords(edges, from, to, base, ends, n)
        : listWordsByBits(edges, from, to, base, ends, n);
  }

  /**
   * Lists the places of the edges in words that were collected, all of a word's at once. Three
   * words a round: so much C2 does not inline where registers are short.
   */
  private static int listWords(long[] edges, int from, int to, long base, int[] ends, int before) {
    int n = before;
    int i = from;
    for (; i <= to - 3; i += 3) {
      long a = edges[RunCursor.EDGES + i];
      long b = edges[RunCursor.EDGES + i + 1];
      long c = edges[RunCursor.EDGES + i + 2];
      int first = (int) (edges[RunCursor.PLACES + i] - base);
      int second = (int) (edges[RunCursor.PLACES + i + 1] - base);
      int third = (int) (edges[RunCursor.PLACES + i + 2] - base);
      int behindA = n + Long.bitCount(a);
      int behindB = behindA + Long.bitCount(b);
      int behindC = behindB + Long.bitCount(c);
      ByteVector in = BITS_UP.compress(VectorMask.fromLong(BIT, a));
      ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 0)).add(first).intoArray(ends, n);
      if (behindA - n > PLACES) {
        listRest(a, first, ends, n);
      }
      in = BITS_UP.compress(VectorMask.fromLong(BIT, b));
      ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 0)).add(second).intoArray(ends, behindA);
      if (behindB - behindA > PLACES) {
        listRest(b, second, ends, behindA);
      }
      in = BITS_UP.compress(VectorMask.fromLong(BIT, c));
      ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 0)).add(third).intoArray(ends, behindB);
      if (behindC - behindB > PLACES) {
        listRest(c, third, ends, behindB);
      }
      n = behindC;
    }
    for (; i < to; i++) {
      long bits = edges[RunCursor.EDGES + i];
      int first = (int) (edges[RunCursor.PLACES + i] - base);
      ByteVector in = BITS_UP.compress(VectorMask.fromLong(BIT, bits));
      ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 0)).add(first).intoArray(ends, n);
      if (Long.bitCount(bits) > PLACES) {
        listRest(bits, first, ends, n);
      }
      n += Long.bitCount(bits);
    }
    return n;
  }

  /** The places of a word behind the first ones; apart, as few words have so many. */
  private static void listRest(long bits, int first, int[] ends, int n) {
    ByteVector in = BITS_UP.compress(VectorMask.fromLong(BIT, bits));
    ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 1)).add(first).intoArray(ends, n + PLACES);
    ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 2))
        .add(first)
        .intoArray(ends, n + 2 * PLACES);
    ((IntVector) in.convertShape(ZERO_EXTEND_B2I, PLACE, 3))
        .add(first)
        .intoArray(ends, n + 3 * PLACES);
  }

  /** The same where a processor with AVX-512 has no compression of bytes. */
  private static int listWordsByBits(
      long[] edges, int from, int to, long base, int[] ends, int before) {
    int n = before;
    for (int i = from; i < to; i++) {
      long bits = edges[RunCursor.EDGES + i];
      int count = Long.bitCount(bits);
      ScalarBitmapOps.listBits(bits, count, (int) (edges[RunCursor.PLACES + i] - base), ends, n);
      n += count;
    }
    return n;
  }

  private static int listRunsOfParts(
      MemorySegment map,
      MemorySegment lines,
      long base,
      long end,
      int[] ends,
      int before,
      long[] edges) {
    guard(map);
    int n = before;
    long line = edges[RunCursor.LINE];
    while (line < end && n < RunCursor.ENOUGH) {
      long left = RunCursor.named(lines, line, end) | n & 1;
      if (left == 0) {
        line = Math.min((line | 63) + 1, end);
        continue;
      }
      line += Long.numberOfTrailingZeros(left);
      int place = (int) ((line << 9) - base);
      long set = 0;
      long low = n & 1;
      for (int at = 0; at < LINE; at += BYTES) {
        LongVector bits = fromMemorySegment(SPECIES, map, (line << 6) + at, LE);
        long tops = bits.compare(LT, 0).toLong();
        LongVector edge = bits.lanewise(XOR, bits.lanewise(LSHL, 1));
        edge = edge.lanewise(XOR, 1, VectorMask.fromLong(SPECIES, tops << 1 | low));
        low = tops >>> SPECIES.length() - 1;
        edge.intoArray(edges, RunCursor.EDGES + (at >> 3));
        set |= edge.compare(NE, 0).toLong() << (at >> 3);
      }
      for (; set != 0; set &= set - 1) {
        int word = Long.numberOfTrailingZeros(set) & 7;
        long bits = edges[RunCursor.EDGES + word];
        int count = Long.bitCount(bits);
        ScalarBitmapOps.listBits(bits, count, place + (word << 6), ends, n);
        n += count;
      }
      line++;
    }
    edges[RunCursor.LINE] = line;
    return n;
  }
}
