package dev.tidemark.bench.duel;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.OptionalDouble;
import org.junit.jupiter.api.Test;

class TidemarkContestantTest {
  @Test
  void takesWhatMigrateSays() {
    Sample sample =
        TidemarkContestant.sample(
            """
            {"status":"completed","pagesSent":1000,"zeroPages":70,"bytesSent":3900000,
            "totalMillis":812.5,"firstPageMillis":90.5,"downtimeMillis":31.5,"digestMillis":12.5,
            "cpuMillis":500,"guestPagesPerSecondBefore":10000,"guestPagesPerSecond":9800,
            "guestPagesPerSecondAfter":9900,"guestLongestStallMillis":7.5,"verified":true}
            """,
            2_000_000_000L);
    double[] expected = {812.5, 31.5, 12.5, 90.5, 3.9, 7, 0.25, -1, -1, 10000, 9800, 9900, 7.5};
    for (Measure measure : Measure.values()) {
      assertEquals(
          expected[measure.ordinal()], sample.get(measure).orElse(-1), 1e-9, measure::name);
    }
  }

  @Test
  void whatItDoesNotSayIsNotKnown() {
    Sample sample =
        TidemarkContestant.sample("{\"totalMillis\":5,\"downtimeMillis\":null}", 1L << 30);
    assertEquals(OptionalDouble.of(5), sample.get(Measure.TOTAL));
    assertEquals(1, Arrays.stream(Measure.values()).filter(m -> sample.get(m).isPresent()).count());
  }

  @Test
  void whatIsNoObjectIsAnErrorThatShowsIt() {
    String message =
        assertThrows(
                IllegalStateException.class, () -> TidemarkContestant.sample("Killed", 1L << 30))
            .getMessage();
    assertTrue(message.contains("Killed"), message);
  }
}
