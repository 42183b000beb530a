package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class DowntimeEstimateTest {
  private static final long RECORD = 4104;

  /** At 1 byte a nanosecond, and no sync. */
  private static DowntimeEstimate estimate() {
    DowntimeEstimate estimate = new DowntimeEstimate();
    estimate.sent(1_000_000, 1_000_000);
    return estimate;
  }

  @Test
  void nothingIsKnownBeforeAnythingWasSent() {
    DowntimeEstimate estimate = new DowntimeEstimate();
    assertEquals(Long.MAX_VALUE, estimate.nanos(1, 0));
    estimate.sent(1000, 1000);
    assertEquals(RECORD, estimate.nanos(1, 0));
    assertEquals(RECORD + 100, estimate.nanos(1, 100));
  }

  @Test
  void theFirstRoundsZeroPagesSayNothingAboutWhatTheGuestWrites() {
    DowntimeEstimate estimate = estimate();
    estimate.round(1_000_000, 999_999, 1_000_000);
    assertEquals(100 * RECORD, estimate.nanos(100, 0));
  }

  @Test
  void aGuestThatWritesZerosIsExpectedToWriteZerosAfterTwoRoundsOfThem() {
    DowntimeEstimate estimate = estimate();
    estimate.round(1000, 0, 1_000_000);
    estimate.round(200, 200, 200 * 9);
    assertEquals(100 * RECORD, estimate.nanos(100, 0));
    estimate.round(200, 200, 200 * 9);
    assertEquals(100 * 9, estimate.nanos(100, 0));
    // One round with content, and they are expected to have some.
    estimate.round(200, 0, 200 * RECORD);
    assertEquals(100 * RECORD, estimate.nanos(100, 0));
  }

  @Test
  void zeroPagesAreNoFasterThanTheyWere() {
    DowntimeEstimate estimate = estimate();
    estimate.round(1000, 0, 1_000_000);
    estimate.round(200, 200, 200 * 300);
    estimate.round(200, 200, 200 * 300);
    assertEquals(100 * 300, estimate.nanos(100, 0), "nine bytes are nothing, finding them is");
    // However slow small rounds are, zero pages take no longer than whole ones.
    estimate.round(1, 1, 10_000_000);
    estimate.round(1, 1, 10_000_000);
    assertEquals(100 * RECORD, estimate.nanos(100, 0));
  }

  @Test
  void aMixtureIsTakenAtItsSmallerShare() {
    DowntimeEstimate estimate = estimate();
    estimate.round(1000, 0, 0);
    estimate.round(100, 75, 0);
    estimate.round(100, 50, 0);
    long expected = 50 * RECORD + 50 * 9;
    assertTrue(Math.abs(estimate.nanos(100, 0) - expected) <= 1, "" + estimate.nanos(100, 0));
  }
}
