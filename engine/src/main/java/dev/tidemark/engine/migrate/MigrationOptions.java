package dev.tidemark.engine.migrate;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Objects;

/**
 * What a migration may cost. Of durations, what is more than a century counts as one.
 *
 * @param downtimeLimit the guest is stopped once the rest is expected to take no longer than this
 * @param maxBandwidth bytes/s on the wire while the guest runs, 0 for no limit; the final copy,
 *     with the guest stopped, is not limited, so the expectation before it errs on the safe side
 * @param maxRounds rounds with the guest running, at least 1
 * @param timeLimit for all rounds together, from {@code run()} until the guest is stopped
 * @param atLimit what happens at {@code maxRounds} or {@code timeLimit}
 * @param answerLimit how long the destination may take to answer, its work on the state included,
 *     and how long it may take in nothing
 * @param stopLimit how long the guest may be stopped before go, once {@link GuestControl#stop()}
 *     has returned: past it the guest is resumed at the source and the migration has failed. It
 *     does not hold for a stop that {@link AtLimit#STOP_AND_COPY} forced
 * @param returnPath whether the destination answers (Tidemark) or only listens (QEMU without its
 *     return path); without answers a round counts as received once it is written
 * @param machine the machine name of the stream's configuration element; QEMU compares it
 */
public record MigrationOptions(
    Duration downtimeLimit,
    long maxBandwidth,
    int maxRounds,
    Duration timeLimit,
    AtLimit atLimit,
    Duration answerLimit,
    Duration stopLimit,
    boolean returnPath,
    String machine) {
  private static final int STOP_LIMIT_FACTOR = 10;
  private static final Duration LEAST_STOP_LIMIT = Duration.ofSeconds(5);
  private static final long CENTURY = 36_525L * 24 * 3600 * 1_000_000_000L;
  private static final int MAX_MACHINE_BYTES = 255;

  /**
   * The defaults: 300 ms, no bandwidth limit, 30 rounds, 10 minutes, fail at the limit, 60 s to
   * answer, 5 s stopped.
   */
  public static final MigrationOptions DEFAULT =
      new MigrationOptions(
          Duration.ofMillis(300),
          0,
          30,
          Duration.ofMinutes(10),
          AtLimit.FAIL,
          Duration.ofSeconds(60),
          true,
          "tidemark");

  /** Checks the ranges. */
  public MigrationOptions {
    positive(downtimeLimit, "downtime limit");
    positive(timeLimit, "time limit");
    positive(answerLimit, "answer limit");
    positive(stopLimit, "stop limit");
    Objects.requireNonNull(atLimit, "atLimit");
    int bytes = machine.getBytes(StandardCharsets.UTF_8).length;
    if (bytes > MAX_MACHINE_BYTES) {
      throw new IllegalArgumentException(
          "machine name of " + bytes + " bytes, more than " + MAX_MACHINE_BYTES);
    }
    if (maxBandwidth < 0) {
      throw new IllegalArgumentException("max bandwidth of " + maxBandwidth + " bytes/s");
    }
    if (maxRounds < 1) {
      throw new IllegalArgumentException(maxRounds + " rounds: at least the first is needed");
    }
  }

  /**
   * With the stop limit that goes with a downtime limit: ten times that, at least 5 s.
   *
   * @param downtimeLimit as above
   * @param maxBandwidth as above
   * @param maxRounds as above
   * @param timeLimit as above
   * @param atLimit as above
   * @param answerLimit as above
   * @param returnPath as above
   * @param machine as above
   */
  public MigrationOptions(
      Duration downtimeLimit,
      long maxBandwidth,
      int maxRounds,
      Duration timeLimit,
      AtLimit atLimit,
      Duration answerLimit,
      boolean returnPath,
      String machine) {
    this(
        downtimeLimit,
        maxBandwidth,
        maxRounds,
        timeLimit,
        atLimit,
        answerLimit,
        stopLimitFor(downtimeLimit),
        returnPath,
        machine);
  }

  private static Duration stopLimitFor(Duration downtimeLimit) {
    Duration limit = Duration.ofNanos(nanos(downtimeLimit)).multipliedBy(STOP_LIMIT_FACTOR);
    return limit.compareTo(LEAST_STOP_LIMIT) < 0 ? LEAST_STOP_LIMIT : limit;
  }

  static void positive(Duration duration, String what) {
    if (duration.isNegative() || duration.isZero()) {
      throw new IllegalArgumentException(what + " of " + duration);
    }
  }

  /** A duration in ns, a century at most: sums with points in time do not overflow. */
  static long nanos(Duration duration) {
    return duration.compareTo(Duration.ofNanos(CENTURY)) >= 0 ? CENTURY : duration.toNanos();
  }

  /** These options with another downtime limit, and the stop limit that goes with it. */
  public MigrationOptions withDowntimeLimit(Duration limit) {
    return new MigrationOptions(
        limit, maxBandwidth, maxRounds, timeLimit, atLimit, answerLimit, returnPath, machine);
  }

  /** These options with another bandwidth limit, bytes/s, 0 for none. */
  public MigrationOptions withMaxBandwidth(long bytesPerSecond) {
    return new MigrationOptions(
        downtimeLimit,
        bytesPerSecond,
        maxRounds,
        timeLimit,
        atLimit,
        answerLimit,
        stopLimit,
        returnPath,
        machine);
  }

  /** These options with other limits on the rounds, and what happens there. */
  public MigrationOptions withLimits(int rounds, Duration time, AtLimit then) {
    return new MigrationOptions(
        downtimeLimit,
        maxBandwidth,
        rounds,
        time,
        then,
        answerLimit,
        stopLimit,
        returnPath,
        machine);
  }

  /** These options with another limit on the destination's answers. */
  public MigrationOptions withAnswerLimit(Duration limit) {
    return new MigrationOptions(
        downtimeLimit,
        maxBandwidth,
        maxRounds,
        timeLimit,
        atLimit,
        limit,
        stopLimit,
        returnPath,
        machine);
  }

  /** These options with another limit on how long the guest is stopped before go. */
  public MigrationOptions withStopLimit(Duration limit) {
    return new MigrationOptions(
        downtimeLimit,
        maxBandwidth,
        maxRounds,
        timeLimit,
        atLimit,
        answerLimit,
        limit,
        returnPath,
        machine);
  }

  /**
   * These options for a QEMU that receives: no return path.
   *
   * @param machineName the name of its machine type, such as {@code none} or {@code pc-q35-7.2}
   */
  public MigrationOptions forQemu(String machineName) {
    return new MigrationOptions(
        downtimeLimit,
        maxBandwidth,
        maxRounds,
        timeLimit,
        atLimit,
        answerLimit,
        stopLimit,
        false,
        machineName);
  }
}
