package dev.tidemark.bench.duel;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.bench.qemu.QemuBinary;
import dev.tidemark.bench.qemu.TestQemus;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** One sample of a small duel: its numbers fit each other, whatever they are. */
@Timeout(600)
class DuelTest {
  private static final long RAM = 64 << 20;

  /** What a QEMU tells in any case. */
  private static final Set<Measure> OF_QEMU =
      EnumSet.complementOf(EnumSet.of(Measure.DIGESTS, Measure.PAGES_DURING));

  @Test
  void bothSidesAreMeasuredAndTheNumbersFitEachOther() throws Exception {
    QemuBinary qemu = TestQemus.newest();
    List<String> told = new ArrayList<>();
    Duel duel = new Duel(qemu, new Match(RAM, 20_000), List.of(1, 3), 1);
    List<Row> rows = duel.run(1, (name, _) -> told.add(name));
    assertEquals(List.of("Tidemark", "QEMU, one stream", "QEMU, multifd 3"), told);
    for (String rival : told.subList(1, 3)) {
      Set<Measure> known =
          rows.stream()
              .filter(row -> row.rival().equals(rival) && row.others().isPresent())
              .map(Row::measure)
              .collect(Collectors.toSet());
      assertTrue(known.containsAll(OF_QEMU), known.toString());
    }
    for (Row row : rows) {
      String all = rows.toString();
      if (row.tidemark().isPresent() && row.others().isPresent() && median(row.others()) > 0) {
        assertEquals(median(row.tidemark()) / median(row.others()), median(row.ratio()), 1e-9, all);
      }
      for (Optional<Spread> side : List.of(row.tidemark(), row.others())) {
        if (side.isEmpty()) {
          continue;
        }
        double value = median(side);
        switch (row.measure()) {
          // All that is not zero was sent at least once; a page in 16 is zero, and the 4 MiB below.
          case BYTES -> assertTrue(value > 0.85 * RAM / 1e6, all);
          case ZERO_PAGES -> assertTrue(value > 6 && value < 20, all);
          case DOWNTIME, DIGESTS, FIRST_PAGE ->
              assertTrue(value <= side(rows, row, side, Measure.TOTAL) + 1, all);
          case TOTAL -> assertTrue(value < 1000 * side(rows, row, side, Measure.WHOLE), all);
          // Each is rounded to 10 ms per process.
          case CPU ->
              assertTrue(value * RAM / 1e9 <= side(rows, row, side, Measure.WHOLE_CPU) + 0.05, all);
          // They are there or not.
          case PAGES_BEFORE, PAGES_DURING, PAGES_AFTER, STALL, WHOLE, WHOLE_CPU ->
              assertTrue(value >= 0, all);
        }
      }
    }
  }

  private static double median(Optional<Spread> spread) {
    return spread.orElseThrow().median();
  }

  /** Another measure of the same side. */
  private static double side(List<Row> rows, Row row, Optional<Spread> side, Measure measure) {
    Row other =
        rows.stream()
            .filter(r -> r.rival().equals(row.rival()) && r.measure() == measure)
            .findFirst()
            .orElseThrow();
    return median(side == row.tidemark() ? other.tidemark() : other.others());
  }
}
