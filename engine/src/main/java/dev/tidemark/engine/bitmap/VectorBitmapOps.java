package dev.tidemark.engine.bitmap;

import static dev.tidemark.engine.bitmap.Vectors.BYTES;
import static dev.tidemark.engine.bitmap.Vectors.LE;
import static dev.tidemark.engine.bitmap.Vectors.PAIR;
import static dev.tidemark.engine.bitmap.Vectors.SPECIES;
import static dev.tidemark.engine.bitmap.Vectors.guard;
import static jdk.incubator.vector.LongVector.fromMemorySegment;
import static jdk.incubator.vector.VectorOperators.BIT_COUNT;
import static jdk.incubator.vector.VectorOperators.NE;

import java.lang.foreign.MemorySegment;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.LongVector;
import jdk.incubator.vector.VectorOperators;

/**
 * The vector twin: whole vectors of the destination here, the edges of the range by {@link
 * ScalarBitmapOps}. Only {@link Bitmaps} may load this class, once it knows that the incubator
 * module is there.
 */
final class VectorBitmapOps extends CheckedBitmapOps {
  /** Width of a vector in bits. */
  static final int WIDTH = SPECIES.vectorBitSize();

  private final VectorMerges merges = new VectorMerges();
  private final VectorLines summaries = new VectorLines();
  private final boolean compressesBytes;

  /**
   * @param compressesBytes whether the processor has an instruction for {@link ByteVector#compress}
   *     at the width of a line (AVX512_VBMI2)
   */
  VectorBitmapOps(boolean compressesBytes) {
    this.compressesBytes = compressesBytes;
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
        VectorMerges.orAligned(dst, dstByte, src, srcByte, body);
      } else {
        VectorMerges.orShifted(dst, dstByte, src, srcByte, body, shift);
      }
    }
    long done = head + (body << 3);
    ScalarBitmapOps.orRange(dst, dstBit + done, src, srcBit + done, bits - done);
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
              ? merges.orCount(false, dst, dstByte, src, srcByte, body)
              : VectorMerges.orCountShifted(dst, dstByte, src, srcByte, body, shift);
    }
    long done = head + (body << 3);
    if (done == bits) {
      return count;
    }
    return count
        + ScalarBitmapOps.orCountRange(dst, dstBit + done, src, srcBit + done, bits - done);
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
              ? merges.orCount(true, dst, dstByte, src, srcByte, body)
              : VectorMerges.orCountClearShifted(dst, dstByte, src, srcByte, body, shift);
    }
    long done = head + (body << 3);
    if (done == bits) {
      return count;
    }
    return count
        + ScalarBitmapOps.orCountClearRange(dst, dstBit + done, src, srcBit + done, bits - done);
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
        VectorMerges.andNotAligned(dst, dstByte, src, srcByte, body);
      } else {
        VectorMerges.andNotShifted(dst, dstByte, src, srcByte, body, shift);
      }
    }
    long done = head + (body << 3);
    ScalarBitmapOps.andNotRange(dst, dstBit + done, src, srcBit + done, bits - done);
  }

  @Override
  long doCardinality(MemorySegment map, long bit, long bits) {
    long head = head(bit, bits);
    long body = body(bits - head);
    long done = head + (body << 3);
    return ScalarBitmapOps.cardinalityRange(map, bit, head)
        + cardinalityBody(map, bit + head >>> 6 << 3, body)
        + ScalarBitmapOps.cardinalityRange(map, bit + done, bits - done);
  }

  static long cardinalityBody(MemorySegment map, long offset, long bytes) {
    if (bytes == 0) {
      return 0;
    }
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
  static long firstSetVector(MemorySegment map, long offset, long bytes) {
    guard(map);
    long i = offset;
    while (i < offset + bytes && !fromMemorySegment(SPECIES, map, i, LE).compare(NE, 0).anyTrue()) {
      i += BYTES;
    }
    return i;
  }

  /** Where the first vector lies that lacks a bit; the end if there is none. */
  static long firstNotFullVector(MemorySegment map, long offset, long bytes) {
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
    Vectors.fill(map, bit + head >>> 6 << 3, body, -1);
    ScalarBitmapOps.setRange(map, bit + done, bits - done);
  }

  @Override
  void doClear(MemorySegment map, long bit, long bits) {
    long head = head(bit, bits);
    long body = body(bits - head);
    long done = head + (body << 3);
    ScalarBitmapOps.clearRange(map, bit, head);
    Vectors.fill(map, bit + head >>> 6 << 3, body, 0);
    ScalarBitmapOps.clearRange(map, bit + done, bits - done);
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
  long doSummarize(MemorySegment map, long words, MemorySegment lines) {
    long body = words >>> 9 << 9;
    return summaries.summarize(map, body << 3, lines)
        + ScalarBitmapOps.summarizeFrom(map, body, words, lines);
  }

  @Override
  void doClearLines(MemorySegment map, long words, MemorySegment lines) {
    long whole = words >>> 3;
    summaries.clearWholeLines(map, whole, lines);
    if ((words & 7) != 0 && ScalarBitmapOps.anyRange(lines, whole, 1)) {
      ScalarBitmapOps.clearRange(map, whole << 9, (words & 7) << 6);
    }
  }

  @Override
  long doOrLines(MemorySegment dst, MemorySegment src, long words, MemorySegment lines) {
    long whole = words >>> 3;
    long count = VectorLines.orWholeLines(dst, src, whole, lines);
    if ((words & 7) != 0 && ScalarBitmapOps.anyRange(lines, whole, 1)) {
      count += ScalarBitmapOps.orCountRange(dst, whole << 9, src, whole << 9, (words & 7) << 6);
    }
    return count;
  }

  @Override
  void callEmpty(Kernel kernel, int attempt, MemorySegment map, RunScan scan) {
    EmptyCalls.make(kernel, attempt, map, scan);
  }

  @Override
  int listRuns(RunScan scan, long end, int n) {
    return VectorRuns.list(compressesBytes, scan, end, n);
  }
}
