package dev.tidemark.bench.jmh;

/** What the benchmarks' set-ups share. */
final class Inputs {
  private Inputs() {}

  /** Stops a benchmark of something that is wrong. */
  static void check(long expected, long actual, String what) {
    if (expected != actual) {
      throw new IllegalStateException(what + ": " + actual + " instead of " + expected);
    }
  }
}
