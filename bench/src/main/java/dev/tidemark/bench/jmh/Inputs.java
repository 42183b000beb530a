package dev.tidemark.bench.jmh;

import dev.tidemark.engine.bitmap.Bitmaps;

/** What the benchmarks' set-ups share. */
final class Inputs {
  private Inputs() {}

  /** Has vectors run from the first call on. */
  static void warmUp() {
    try {
      Bitmaps.prove();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** Stops a benchmark of something that is wrong. */
  static void check(long expected, long actual, String what) {
    if (expected != actual) {
      throw new IllegalStateException(what + ": " + actual + " instead of " + expected);
    }
  }
}
