package dev.tidemark.bench.duel;

/**
 * What all contestants migrate.
 *
 * @param ramBytes bytes of the guest's RAM
 * @param pagesPerSecond how fast the guest writes, 0 for as fast as it can
 */
public record Match(long ramBytes, long pagesPerSecond) {
  /** A whole command is given up after this many minutes. */
  static final int LIMIT_MINUTES = 20;
}
