package dev.tidemark.bench.duel;

import java.util.Arrays;
import java.util.Optional;

/**
 * A median and its quartiles.
 *
 * @param median half of the values are not above it
 * @param low a quarter of the values are lower
 * @param high a quarter of the values are higher
 */
public record Spread(double median, double low, double high) {
  /**
   * That of some values, in any order.
   *
   * @return empty if there are none
   */
  static Optional<Spread> of(double... values) {
    double[] sorted = values.clone();
    Arrays.sort(sorted);
    int count = sorted.length;
    return count == 0
        ? Optional.empty()
        : Optional.of(
            new Spread(sorted[count / 2], sorted[count / 4], sorted[count - 1 - count / 4]));
  }
}
