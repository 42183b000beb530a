package dev.tidemark.bench.duel;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.Optional;
import org.junit.jupiter.api.Test;

class SpreadTest {
  @Test
  void isTheMiddleAndTheQuartersInAnyOrder() {
    assertEquals(Optional.of(new Spread(4, 2, 6)), Spread.of(7, 1, 4, 2, 6, 3, 5));
    assertEquals(Optional.of(new Spread(2, 1, 3)), Spread.of(3, 2, 1));
    assertEquals(Optional.of(new Spread(5, 5, 5)), Spread.of(5));
    assertEquals(Optional.empty(), Spread.of());
  }

  @Test
  void leavesTheValuesAsTheyWere() {
    double[] values = {3, 1, 2};
    Spread.of(values);
    assertEquals(3, values[0]);
  }
}
