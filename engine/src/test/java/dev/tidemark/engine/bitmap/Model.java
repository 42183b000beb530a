package dev.tidemark.engine.bitmap;

import java.lang.foreign.MemorySegment;
import java.util.BitSet;

/** Every operation once more, by {@link BitSet}. */
final class Model {
  private Model() {}

  static BitSet of(MemorySegment map) {
    return BitSet.valueOf(map.asByteBuffer());
  }

  /** A range, shifted to start at {@code to}. */
  private static BitSet range(BitSet map, long from, long bits, long to) {
    BitSet result = new BitSet();
    for (int bit = map.nextSetBit((int) from);
        bit >= 0 && bit < from + bits;
        bit = map.nextSetBit(bit + 1)) {
      result.set((int) (bit - from + to));
    }
    return result;
  }

  static long or(BitSet dst, long dstBit, BitSet src, long srcBit, long bits) {
    int before = dst.cardinality();
    dst.or(range(src, srcBit, bits, dstBit));
    return dst.cardinality() - before;
  }

  static void andNot(BitSet dst, long dstBit, BitSet src, long srcBit, long bits) {
    dst.andNot(range(src, srcBit, bits, dstBit));
  }

  static long cardinality(BitSet map, long bit, long bits) {
    return map.get((int) bit, (int) (bit + bits)).cardinality();
  }

  static long nextSet(BitSet map, long from, long end) {
    int found = map.nextSetBit((int) from);
    return found < 0 ? end : Math.min(found, end);
  }

  static long nextClear(BitSet map, long from, long end) {
    return Math.min(map.nextClearBit((int) from), end);
  }
}
