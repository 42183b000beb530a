package dev.tidemark.engine.stream;

import java.util.SplittableRandom;

/** Random numbers that can be had again, with {@code -Dtidemark.seed}. */
final class Seed {
  private Seed() {}

  static SplittableRandom random() {
    long seed = Long.getLong("tidemark.seed", System.nanoTime());
    System.out.println("-Dtidemark.seed=" + seed);
    return new SplittableRandom(seed);
  }
}
