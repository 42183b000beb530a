package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

/** Which way of sending pages is taken, by a clock of our own. */
class ReadAheadTest {
  private static final int PAGES = 64;

  private long now;
  private final ReadAhead readAhead = new ReadAhead(() -> now);

  /** Sends some MiB, and says in how many of a hundred parts pages were read ahead. */
  private int percent(long nanosWithout, long nanosWith) {
    int parts = 40_000;
    int with = 0;
    for (int i = 0; i < parts; i++) {
      boolean wanted = readAhead.wanted();
      with += wanted ? 1 : 0;
      now += wanted ? nanosWith : nanosWithout;
      readAhead.sent(PAGES);
    }
    return with * 100 / parts;
  }

  @Test
  void theFasterWayIsTakenAndTheOtherTriedNowAndThen() {
    int some = percent(1000, 1100);
    assertTrue(some > 2 && some < 10, some + " % with");
    int most = percent(1100, 1000);
    assertTrue(most > 90 && most < 98, most + " % with");
  }

  @Test
  void timeInWhichNothingWasSentIsNobodys() {
    percent(1000, 1100);
    int with = 0;
    for (int i = 0; i < 40_000; i++) {
      boolean wanted = readAhead.wanted();
      with += wanted ? 1 : 0;
      now += wanted ? 1100 : 1000;
      readAhead.sent(PAGES);
      if (!wanted && i % 80 == 7) {
        // A round's end, or a stretch of zero pages: long waits, all with the faster way.
        readAhead.wanted();
        now += 1_000_000;
        if (i % 160 == 7) {
          readAhead.sent(0);
        } else {
          readAhead.pause();
        }
      }
    }
    assertTrue(with < 4000, with + " of 40000 with");
  }
}
