package dev.tidemark.ffm;

import dev.tidemark.ffm.internal.Libc;

/** The host's base page, the unit of tracking. */
public final class Pages {
  private static final int _SC_PAGESIZE = 30;

  /** Bytes of a base page: 4096 on x86-64; 4096, 16384 or 65536 on arm64. */
  public static final long SIZE = Libc.check(Libc.sysconf(_SC_PAGESIZE), "sysconf(_SC_PAGESIZE)");

  /** The power of two that {@link #SIZE} is. */
  public static final int SHIFT = Long.numberOfTrailingZeros(SIZE);

  private Pages() {}

  /**
   * Rounds up to whole pages.
   *
   * @param bytes 0 or more
   * @return the smallest multiple of {@link #SIZE} that is not less
   */
  public static long roundUp(long bytes) {
    return Math.addExact(bytes, SIZE - 1) & -SIZE;
  }
}
