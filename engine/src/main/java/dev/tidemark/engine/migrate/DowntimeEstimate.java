package dev.tidemark.engine.migrate;

import dev.tidemark.ffm.Pages;

/**
 * How long the guest would have to be stopped: what is left to send at the smoothed speed, and a
 * sync. Averages are exponentially weighted, so that one odd measurement does not stop a guest.
 *
 * <p>How many of the pages that are left are zero, and so cost {@value #ZERO_RECORD_BYTES} bytes
 * each, nobody knows before they are read. What the guest wrote lately tells: the smaller share of
 * the last two rounds counts. The first round does not, because it holds every page, most of which
 * may never have been touched. Zero pages are no faster than the time in which pages of late rounds
 * went: their bytes say little about the work of finding them.
 */
final class DowntimeEstimate {
  /** A page, or the byte that stands for a zero page, with the word that says where it belongs. */
  private static final long RECORD_BYTES = Pages.SIZE + 8;

  private static final long ZERO_RECORD_BYTES = 9;
  private static final double WEIGHT = 0.4;

  private double bytesPerNano;
  private double syncNanos;
  private double nanosPerPage;
  private int rounds;

  /** The shares of zero pages in the last round, and in the one before. */
  private double zeros;

  private double zerosBefore;

  /** Takes in a stretch of sending; waiting for the bandwidth limit is part of it. */
  void sent(long bytes, long nanos) {
    if (bytes > 0 && nanos > 0) {
      bytesPerNano = smooth(bytesPerNano, (double) bytes / nanos);
    }
  }

  /**
   * Takes in a round.
   *
   * @param pages how many it had, zero pages included
   * @param zeroPages how many of them were zero
   * @param nanos how long sending them took
   */
  void round(long pages, long zeroPages, long nanos) {
    rounds++;
    if (rounds > 1 && pages > 0) {
      zerosBefore = rounds == 2 ? 0 : zeros;
      zeros = (double) zeroPages / pages;
      nanosPerPage = smooth(nanosPerPage, (double) nanos / pages);
    }
  }

  /** Takes in the time of a sync. */
  void synced(long nanos) {
    syncNanos = smooth(syncNanos, nanos);
  }

  private static double smooth(double average, double sample) {
    return average == 0 ? sample : average + WEIGHT * (sample - average);
  }

  long bytesPerSecond() {
    return (long) (bytesPerNano * 1e9);
  }

  /**
   * The expected downtime in ns, or {@link Long#MAX_VALUE} while no speed is known.
   *
   * @param pages how many are left
   * @param otherBytes what is left besides
   */
  long nanos(long pages, long otherBytes) {
    if (bytesPerNano == 0) {
      return Long.MAX_VALUE;
    }
    double share = Math.min(zeros, zerosBefore);
    double bytes = pages * (RECORD_BYTES - share * (RECORD_BYTES - ZERO_RECORD_BYTES));
    double ram = Math.max(bytes / bytesPerNano, pages * nanosPerPage);
    // A small round is slow for its few pages: that is no reason to expect more than if none were
    // zero.
    ram = Math.min(ram, pages * RECORD_BYTES / bytesPerNano);
    return (long) (ram + otherBytes / bytesPerNano + syncNanos);
  }
}
