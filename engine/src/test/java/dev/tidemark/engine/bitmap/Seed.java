package dev.tidemark.engine.bitmap;

import java.util.SplittableRandom;

/** Random numbers that a failed run can be repeated with. */
final class Seed {
  private static final long SEED = Long.getLong("tidemark.seed", System.nanoTime());

  static {
    System.out.println("to repeat: -Dtidemark.seed=" + SEED);
  }

  private Seed() {}

  static SplittableRandom random() {
    return new SplittableRandom(SEED);
  }
}
