package dev.tidemark.bench.jmh;

import dev.tidemark.engine.bitmap.Bitmaps;

/** What the benchmarks' set-ups share. */
final class Inputs {
  private Inputs() {}

  /** Has compiled what a migration has compiled before its first round. */
  static void warmUp() {
    Bitmaps.warmUp();
  }

  /** Stops a benchmark of something that is wrong. */
  static void check(long expected, long actual, String what) {
    if (expected != actual) {
      throw new IllegalStateException(what + ": " + actual + " instead of " + expected);
    }
  }
}
