package dev.tidemark.bench.guest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class ThroughputMeterTest {
  private static final long MS = 1_000_000;

  private final ThroughputMeter meter = new ThroughputMeter();

  /** A batch that takes so long, after which the guest waits for its rate for so long. */
  private long batch(long time, long work, long wait) {
    meter.did(time + work, 64);
    meter.goesOn(time + work + wait, time + work + wait);
    return time + work + wait;
  }

  @Test
  void waitsForTheRateAreNoWorkAndNoStall() {
    meter.begin(0);
    long time = 0;
    for (int i = 0; i < 10; i++) {
      time = batch(time, MS, 5 * MS);
    }
    meter.did(time + MS, 64);
    assertEquals(
        new Throughput(11 * 64, 61 * MS, 11 * MS, MS), meter.take(time + MS), "ten and the last");
  }

  @Test
  void aLateReturnFromAWaitIsAStallButNoWork() {
    meter.begin(0);
    meter.did(2 * MS, 64);
    // Allowed at 3, back at 7, done at 9.
    meter.goesOn(7 * MS, 3 * MS);
    meter.did(9 * MS, 64);
    assertEquals(new Throughput(128, 9 * MS, 4 * MS, 6 * MS), meter.take(9 * MS));
  }

  @Test
  void aStallBelongsToTheStretchInWhichItEnds() {
    meter.begin(0);
    long time = batch(0, MS, 0);
    time = batch(time, 50 * MS, 0);
    assertEquals(new Throughput(64, MS, MS, MS), meter.take(30 * MS));
    assertEquals(new Throughput(64, 50 * MS, 50 * MS, 50 * MS), meter.take(time));
    assertEquals(Throughput.NONE, meter.take(Long.MAX_VALUE / 2));
  }

  @Test
  void aPauseIsNeitherRunNorStallAndWhatItCutShortIs() {
    meter.begin(0);
    meter.did(MS, 64);
    meter.end(4 * MS);
    meter.begin(1000 * MS);
    meter.did(1001 * MS, 64);
    assertEquals(new Throughput(128, 5 * MS, 5 * MS, 3 * MS), meter.take(1001 * MS));
  }

  @Test
  void nothingIsLostIfNobodyTakesItForLong() {
    meter.begin(0);
    long time = 0;
    for (int i = 0; i < 10_000; i++) {
      time = batch(time, i == 9_000 ? 7 * MS : MS, 0);
    }
    Throughput all = meter.take(time);
    assertEquals(new Throughput(640_000, 10_006 * MS, 10_006 * MS, 7 * MS), all);
    assertEquals(640_000 / 10.006, all.pagesPerSecond(), 1);
    assertEquals(10_006e6 / 640_000, all.nanosPerPage(), 1);
  }

  @Test
  void noTimeHasNoThroughput() {
    assertTrue(Double.isNaN(meter.take(0).pagesPerSecond()));
    assertTrue(Double.isNaN(meter.take(0).nanosPerPage()));
  }
}
