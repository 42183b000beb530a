package dev.tidemark.engine.migrate;

/**
 * Where a migration is.
 *
 * @param phase what is being done
 * @param round 1 for the first
 * @param dirtyPages pages that this round's harvest took
 * @param pagesSent pages sent so far with their content
 * @param zeroPages pages sent so far as zero
 * @param bytesSent bytes on the wire so far
 * @param bytesPerSecond smoothed, 0 while unknown
 * @param expectedDowntimeNanos if the guest were stopped at this harvest; -1 while unknown
 * @param syncNanos how long this round's sync took, in ns
 * @param elapsedNanos since the start, in ns
 */
public record Progress(
    Phase phase,
    int round,
    long dirtyPages,
    long pagesSent,
    long zeroPages,
    long bytesSent,
    long bytesPerSecond,
    long expectedDowntimeNanos,
    long syncNanos,
    long elapsedNanos) {
  /** What is being done. */
  public enum Phase {
    /** A round was harvested and is about to be sent. */
    HARVESTED,
    /** A round is being sent. */
    SENDING,
    /** A round arrived. */
    ARRIVED,
    /** The guest is stopped; the rest is being sent. */
    STOPPED
  }
}
