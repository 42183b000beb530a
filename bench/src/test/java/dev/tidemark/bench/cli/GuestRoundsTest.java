package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.bench.guest.SelfCheckingGuest;
import dev.tidemark.bench.guest.Throughput;
import dev.tidemark.engine.migrate.Progress;
import dev.tidemark.engine.migrate.Progress.Phase;
import java.lang.reflect.Proxy;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import org.junit.jupiter.api.Test;

class GuestRoundsTest {
  private final Queue<Throughput> answers = new ArrayDeque<>();
  private final List<Progress> told = new ArrayList<>();
  private final GuestRounds rounds = new GuestRounds(guest(), told::add);

  private SelfCheckingGuest guest() {
    return (SelfCheckingGuest)
        Proxy.newProxyInstance(
            getClass().getClassLoader(),
            new Class<?>[] {SelfCheckingGuest.class},
            (_, method, arguments) -> {
              assertEquals("throughput", method.getName());
              assertTrue((long) arguments[0] - System.nanoTime() <= 0);
              return answers.remove();
            });
  }

  private void tell(Phase phase, int round) {
    rounds.accept(new Progress(phase, round, 0, 0, 0, 0, 0, -1, 0, 0));
  }

  @SuppressWarnings("unchecked")
  private static List<Map<String, Object>> listOf(Map<String, Object> summary) {
    return (List<Map<String, Object>>) summary.get("guestRounds");
  }

  @Test
  void aRoundEndsWhenItHasArrivedAndTheLastWithTheMigration() throws Exception {
    // Forgotten; before, not enough yet, enough; of round 1 in two parts; of round 2; of the last.
    answers.add(new Throughput(5, 5, 5, 5));
    answers.add(new Throughput(400, 300_000_000L, 300_000_000L, 1_000_000));
    answers.add(new Throughput(600, 700_000_000L, 200_000_000L, 1_000_000));
    answers.add(new Throughput(100, 100_000_000L, 90_000_000L, 2_000_000));
    answers.add(new Throughput(400, 900_000_000L, 410_000_000L, 3_000_000));
    answers.add(new Throughput(250, 1_000_000_000L, 800_000_000L, 30_000_000));
    answers.add(Throughput.NONE);
    answers.add(Throughput.NONE);
    rounds.measureBefore(0);
    tell(Phase.SENDING, 1);
    tell(Phase.ARRIVED, 1);
    tell(Phase.ARRIVED, 2);
    tell(Phase.STOPPED, 3);
    rounds.end();
    assertEquals(4, told.size());

    Map<String, Object> summary = new LinkedHashMap<>();
    rounds.put(summary, new Throughput(2000, 1_000_000_000L, 1_000_000_000L, 4_000_000));
    assertEquals(1000L, summary.get("guestPagesPerSecondBefore"));
    assertEquals(500_000L, summary.get("guestNanosPerPageBefore"));
    assertEquals(1.0, summary.get("guestLongestStallMillisBefore"));
    assertEquals(375L, summary.get("guestPagesPerSecond"));
    assertEquals(0.625, summary.get("guestSlowdown"));
    assertEquals(30.0, summary.get("guestLongestStallMillis"));
    assertEquals(2000L, summary.get("guestPagesPerSecondAfter"));
    assertEquals(4.0, summary.get("guestLongestStallMillisAfter"));
    List<Map<String, Object>> list = listOf(summary);
    assertEquals(3, list.size());
    assertEquals(500L, list.get(0).get("pagesPerSecond"));
    assertEquals(1_000_000L, list.get(0).get("nanosPerPage"));
    assertEquals(3.0, list.get(0).get("longestStallMillis"));
    assertEquals(0.5, list.get(0).get("slowdown"));
    assertEquals(0.75, list.get(1).get("slowdown"));
    // Stopped before it had done 64 pages.
    assertNull(list.get(2).get("pagesPerSecond"));
    assertNull(list.get(2).get("slowdown"));
    assertEquals("1000 pages/s before, 375 during, longest stall 30.0 ms", rounds.line());
  }

  @Test
  void whatIsNotKnownIsNull() {
    answers.add(Throughput.NONE);
    rounds.end();
    Map<String, Object> summary = new LinkedHashMap<>();
    rounds.put(summary, null);
    assertNull(summary.get("guestPagesPerSecondBefore"));
    assertNull(summary.get("guestSlowdown"));
    assertNull(summary.get("guestPagesPerSecondAfter"));
    assertTrue(Json.of(summary).contains("\"guestSlowdown\":null"));
  }
}
