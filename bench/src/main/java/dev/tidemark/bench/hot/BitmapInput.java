package dev.tidemark.bench.hot;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.SplittableRandom;

/**
 * Dirty bitmaps, the same for the same seed.
 *
 * @param density how many of the pages are dirty, 0 to 1
 * @param clustered whether they come in runs of 64 pages instead of one by one
 */
public record BitmapInput(double density, boolean clustered) {
  /** Pages in a run of a clustered bitmap. */
  public static final int CLUSTER = 64;

  /** The seed of all inputs, from {@code -Dtidemark.seed}. */
  public static final long SEED = Long.getLong("tidemark.seed", 42);

  /** Takes a density from 0 to 1. */
  public BitmapInput {
    if (!(density >= 0 && density <= 1)) {
      throw new IllegalArgumentException("density " + density);
    }
  }

  /**
   * Fills a bitmap.
   *
   * @param map whole 64-bit words
   * @param salt tells inputs of the same seed apart
   * @return how many bits are set
   */
  public long fill(MemorySegment map, long salt) {
    long bits = map.byteSize() * 8;
    map.fill((byte) (density > 0.5 ? -1 : 0));
    // Where most are set it is the clean ones that are drawn.
    boolean value = density <= 0.5;
    long wanted = Math.round(bits * (value ? density : 1 - density));
    SplittableRandom random = new SplittableRandom(SEED + salt);
    long run = clustered ? Math.min(CLUSTER, Math.max(1, wanted)) : 1;
    for (long done = 0; done < wanted; ) {
      long first = random.nextLong(bits);
      for (long page = first; page < Math.min(first + run, bits) && done < wanted; page++) {
        if (set(map, page, value)) {
          done++;
        }
      }
    }
    return value ? wanted : bits - wanted;
  }

  private static boolean set(MemorySegment map, long bit, boolean value) {
    long at = bit >>> 6 << 3;
    long old = map.get(ValueLayout.JAVA_LONG, at);
    long mask = 1L << bit;
    if ((old & mask) != 0 == value) {
      return false;
    }
    map.set(ValueLayout.JAVA_LONG, at, old ^ mask);
    return true;
  }

  /** Such as {@code 0.1 % scattered}. */
  @Override
  public String toString() {
    String percent = String.valueOf(Math.round(density * 1e6) / 1e4).replaceAll("\\.0$", "");
    return percent
        + " %"
        + (density == 0 || density == 1 ? "" : clustered ? " clustered" : " scattered");
  }
}
