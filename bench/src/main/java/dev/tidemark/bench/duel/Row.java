package dev.tidemark.bench.duel;

import java.util.List;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.stream.IntStream;

/**
 * Tidemark and one rival in one measure; what is not known is empty.
 *
 * @param measure which
 * @param tidemark the values of Tidemark's samples
 * @param rival the rival's name
 * @param others the values of its samples
 * @param ratio of Tidemark's value to the rival's, sample by sample
 */
public record Row(
    Measure measure,
    Optional<Spread> tidemark,
    String rival,
    Optional<Spread> others,
    Optional<Spread> ratio) {

  /** Compares the samples, the first with the first. */
  static Row of(Measure measure, List<Sample> tidemark, String rival, List<Sample> others) {
    double[] ratios =
        IntStream.range(0, Math.min(tidemark.size(), others.size()))
            .mapToDouble(
                i ->
                    tidemark.get(i).get(measure).orElse(Double.NaN)
                        / others.get(i).get(measure).orElse(Double.NaN))
            .filter(Double::isFinite)
            .toArray();
    return new Row(
        measure, spread(measure, tidemark), rival, spread(measure, others), Spread.of(ratios));
  }

  private static Optional<Spread> spread(Measure measure, List<Sample> samples) {
    return Spread.of(
        samples.stream()
            .map(sample -> sample.get(measure))
            .filter(OptionalDouble::isPresent)
            .mapToDouble(OptionalDouble::getAsDouble)
            .toArray());
  }

  /** Whether either side has a value. */
  boolean isKnown() {
    return tidemark.isPresent() || others.isPresent();
  }
}
