package dev.tidemark.bench.duel;

/** Something that migrates a guest between two new processes. */
interface Contestant {
  /** For people. */
  String name();

  /**
   * Migrates once.
   *
   * @throws IllegalStateException if that fails
   * @throws InterruptedException if the thread was interrupted
   */
  Sample migrate() throws InterruptedException;
}
