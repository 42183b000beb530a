package dev.tidemark.bench.duel;

import java.util.EnumMap;
import java.util.Map;
import java.util.OptionalDouble;

/** What was measured of one migration. */
public final class Sample {
  private final Map<Measure, Double> values = new EnumMap<>(Measure.class);

  /** Notes a value in the measure's unit; one that is not known (NaN or below 0) is not noted. */
  Sample put(Measure measure, double value) {
    if (value >= 0) {
      values.put(measure, value);
    }
    return this;
  }

  /** A value in the measure's unit; empty if it is not known. */
  public OptionalDouble get(Measure measure) {
    Double value = values.get(measure);
    return value == null ? OptionalDouble.empty() : OptionalDouble.of(value);
  }
}
