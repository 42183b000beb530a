package dev.tidemark.bench.guest;

/**
 * How a guest got on in a stretch of time.
 *
 * @param pages test pages that it checked and wrote
 * @param runNanos time in which it was not paused
 * @param workNanos of that, without the time in which it waited because it was ahead of its rate
 * @param longestStallNanos the longest that 64 pages took, counted from when the rate allowed them;
 *     a stall belongs to the stretch in which it ended
 */
public record Throughput(long pages, long runNanos, long workNanos, long longestStallNanos) {
  /** Of no time. */
  public static final Throughput NONE = new Throughput(0, 0, 0, 0);

  /** That of two stretches together. */
  public Throughput plus(Throughput other) {
    return new Throughput(
        pages + other.pages,
        runNanos + other.runNanos,
        workNanos + other.workNanos,
        Math.max(longestStallNanos, other.longestStallNanos));
  }

  /** Pages a second; NaN if it did not run. */
  public double pagesPerSecond() {
    return runNanos == 0 ? Double.NaN : pages * 1e9 / runNanos;
  }

  /** What a page took, in ns, without waits for the rate; NaN if there was none. */
  public double nanosPerPage() {
    return pages == 0 ? Double.NaN : (double) workNanos / pages;
  }
}
