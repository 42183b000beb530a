package dev.tidemark.engine.migrate;

/**
 * How long the guest would have to be stopped: what is left to send at the smoothed speed, and a
 * sync. Both are exponentially weighted, so that one odd measurement does not stop a guest.
 */
final class DowntimeEstimate {
  private static final double WEIGHT = 0.4;

  private double bytesPerNano;
  private double syncNanos;

  /** Takes in a stretch of sending; waiting for the bandwidth limit is part of it. */
  void sent(long bytes, long nanos) {
    if (bytes > 0 && nanos > 0) {
      bytesPerNano = smooth(bytesPerNano, (double) bytes / nanos);
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

  /** The expected downtime in ns, or {@link Long#MAX_VALUE} while no speed is known. */
  long nanos(long bytes) {
    return bytesPerNano == 0 ? Long.MAX_VALUE : (long) (bytes / bytesPerNano + syncNanos);
  }
}
