package dev.tidemark.bench.hot;

import dev.tidemark.engine.bitmap.BitmapOps;
import dev.tidemark.engine.bitmap.Bitmaps;
import dev.tidemark.ffm.Mapping;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.BitSet;
import org.roaringbitmap.BitSetUtil;
import org.roaringbitmap.RoaringBitmap;

/**
 * Merging a source's answer into a plane, which has all of its pages already but a few: what most
 * syncs find.
 */
public final class MergePath implements AutoCloseable {
  private final BitmapOps ops = Bitmaps.ops();
  private final long bytes;
  private final Mapping answerMapping;
  private final Mapping srcMapping;
  private final Mapping dstMapping;
  private final MemorySegment answer;
  private final MemorySegment src;
  private final MemorySegment dst;
  private final long[] words;
  private final BitSet answerSet;
  private final BitSet srcSet;
  private final BitSet dstSet;
  private final RoaringBitmap answerRoaring;
  private final RoaringBitmap dstRoaring;

  /**
   * @param bytes of bitmap, a multiple of 64
   */
  public MergePath(long bytes, BitmapInput input) {
    this.bytes = bytes;
    answerMapping = Mapping.guarded(bytes);
    // A shifted source reaches a word further.
    srcMapping = Mapping.guarded(bytes + 64);
    dstMapping = Mapping.guarded(bytes);
    answer = answerMapping.segment();
    src = srcMapping.segment();
    dst = dstMapping.segment();
    input.fill(answer, 0);
    words = new long[(int) (bytes / Long.BYTES)];
    MemorySegment.copy(answer, ValueLayout.JAVA_LONG, 0, words, 0, words.length);
    answerSet = BitSet.valueOf(words);
    srcSet = new BitSet(words.length * 64);
    dstSet = new BitSet(words.length * 64);
    answerRoaring = BitSetUtil.bitmapOf(words);
    dstRoaring = answerRoaring.clone();
    refill();
    dst.copyFrom(answer);
    dstSet.or(answerSet);
  }

  /** Writes the source anew, for the kinds of merge that clear it. */
  public void refill() {
    Rivals.kernelOverwrite(src, answer, bytes);
    srcSet.or(answerSet);
  }

  /** Empties the plane, so that every bit is new. */
  public void forget() {
    dst.fill((byte) 0);
  }

  /** {@code dst |= src}, counting. */
  public long orCount() {
    return ops.orCount(dst, 0, src, 0, bytes * 8);
  }

  /** The same from a source that begins some bits further on. */
  public long orCountShifted(int shift) {
    return ops.orCount(dst, 0, src, shift, bytes * 8);
  }

  /** The same by the scalar twin. */
  public long scalarOrCount() {
    return Bitmaps.scalar().orCount(dst, 0, src, 0, bytes * 8);
  }

  /** The same, and the source is clear afterwards. */
  public long orCountClear() {
    return ops.orCountClear(dst, 0, src, 0, bytes * 8);
  }

  /** Tidemark's algorithm in C. */
  public long sameOrCount() {
    return Rivals.sameOrCount(dst, src, bytes);
  }

  /** Tidemark's algorithm in C, from a source that begins some bits further on. */
  public long sameOrCountShifted(int shift) {
    return Rivals.sameOrCountShifted(dst, src, bytes, shift);
  }

  /** Tidemark's algorithm in C, and the source is clear afterwards. */
  public long sameOrCountClear() {
    return Rivals.sameOrCountClear(dst, src, bytes);
  }

  /** A plain loop in C. */
  public long plainOrCount() {
    return Rivals.plainOrCount(dst, src, bytes);
  }

  /** A plain loop in C, and the source is clear afterwards. */
  public long plainOrCountClear() {
    return Rivals.plainOrCountClear(dst, src, bytes);
  }

  /** The same job with {@link BitSet}: count the new bits, merge, clear the source. */
  public long bitSet() {
    BitSet fresh = (BitSet) srcSet.clone();
    fresh.andNot(dstSet);
    long count = fresh.cardinality();
    dstSet.or(srcSet);
    srcSet.clear();
    return count;
  }

  /** The same job with RoaringBitmap, from the kernel's bitmap. */
  public long roaring() {
    MemorySegment.copy(src, ValueLayout.JAVA_LONG, 0, words, 0, words.length);
    RoaringBitmap source = BitSetUtil.bitmapOf(words);
    Rivals.limitFill(src, bytes);
    return merge(source);
  }

  /** The same, had the kernel answered with a RoaringBitmap. */
  public long roaringConverted() {
    return merge(answerRoaring);
  }

  private long merge(RoaringBitmap source) {
    long count = RoaringBitmap.andNot(source, dstRoaring).getLongCardinality();
    dstRoaring.or(source);
    return count;
  }

  /** What memory allows: copying the source over the destination, which costs no less. */
  public long limitCopy() {
    Rivals.limitCopy(dst, src, bytes);
    return 0;
  }

  /** How many bits are set. */
  public long cardinality() {
    return ops.cardinality(src, 0, bytes * 8);
  }

  /** The same in C. */
  public long sameCardinality() {
    return Rivals.sameCardinality(src, bytes);
  }

  /** What memory allows: reading the source. */
  public long limitRead() {
    return Rivals.limitRead(src, bytes) & 0;
  }

  /** What memory allows: filling the destination. */
  public long limitFill() {
    Rivals.limitFill(dst, bytes);
    return 0;
  }

  @Override
  public void close() {
    answerMapping.close();
    srcMapping.close();
    dstMapping.close();
  }
}
