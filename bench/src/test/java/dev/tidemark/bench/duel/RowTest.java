package dev.tidemark.bench.duel;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Optional;
import java.util.stream.DoubleStream;
import org.junit.jupiter.api.Test;

class RowTest {
  private static List<Sample> samples(double... totals) {
    return DoubleStream.of(totals)
        .mapToObj(total -> new Sample().put(Measure.TOTAL, total))
        .toList();
  }

  @Test
  void theRatioIsSampleBySample() {
    Row row = Row.of(Measure.TOTAL, samples(10, 20, 300), "other", samples(10, 200, 100));
    assertEquals(Optional.of(new Spread(20, 10, 300)), row.tidemark());
    assertEquals(Optional.of(new Spread(100, 10, 200)), row.others());
    // 1, 0.1 and 3: not the ratio of the medians.
    assertEquals(Optional.of(new Spread(1, 0.1, 3)), row.ratio());
  }

  @Test
  void whatIsNotKnownIsLeftOut() {
    Row half = Row.of(Measure.TOTAL, samples(10, -1, Double.NaN), "other", samples(-1, 5, 7));
    assertEquals(Optional.of(new Spread(10, 10, 10)), half.tidemark());
    assertEquals(Optional.empty(), half.ratio());
    assertTrue(half.isKnown());
    Row none = Row.of(Measure.STALL, samples(1), "other", samples(1));
    assertFalse(none.isKnown());
  }

  @Test
  void aRivalsZeroGivesNoRatio() {
    Row row = Row.of(Measure.TOTAL, samples(1, 2), "other", samples(0, 4));
    assertEquals(Optional.of(new Spread(0.5, 0.5, 0.5)), row.ratio());
  }
}
