package dev.tidemark.bench.ratios;

import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.bench.hot.Rivals;
import dev.tidemark.engine.bitmap.Bitmaps;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;

/** Each contest of {@code ratios --quick} still has two sides with equal results: no times here. */
class SuiteTest {
  private static final Set<String> ON_EVERY_HOST =
      Set.of(
          "merge",
          "merge and clear",
          "harvest and commit",
          "sync, harvest, commit",
          "cardinality",
          "scattering merge",
          "DMA map",
          "mark a page",
          "first sync of a process");

  @Test
  void eachPathIsMeasuredAgainstItsRivals() throws InterruptedException {
    Rivals.missing().ifPresent(reason -> Assumptions.abort(reason));
    Bitmaps.prove();
    List<Outcome> outcomes = new ArrayList<>();
    new Suite(true, new Interleaved(1, 0, 0), outcomes::add).run();
    Set<String> paths = new TreeSet<>();
    for (Outcome outcome : outcomes) {
      paths.add(outcome.path().replaceFirst(", shifted.*|:.*", ""));
      assertTrue(
          outcome.tidemarkNanos() > 0 && outcome.rivalNanos() > 0 && outcome.ratio() > 0,
          outcome.toString());
    }
    assertTrue(paths.containsAll(ON_EVERY_HOST), paths.toString());
  }
}
