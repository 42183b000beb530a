package dev.tidemark.engine.migrate;

import java.time.Duration;
import java.util.Objects;

/**
 * What a migration may cost.
 *
 * @param downtimeLimit the guest is stopped once the rest is expected to take no longer than this
 * @param maxBandwidth bytes/s on the wire while the guest runs, 0 for no limit; the final copy,
 *     with the guest stopped, is not limited, so the expectation before it errs on the safe side
 * @param maxRounds rounds with the guest running, at least 1
 * @param timeLimit for all rounds together, until the guest is stopped
 * @param atLimit what happens at {@code maxRounds} or {@code timeLimit}
 * @param answerLimit how long the destination may take to answer, its work on the state included
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
    boolean returnPath,
    String machine) {

  /** The defaults: 300 ms, no bandwidth limit, 30 rounds, 10 minutes, fail at the limit. */
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
    Objects.requireNonNull(atLimit);
    Objects.requireNonNull(machine);
    if (maxBandwidth < 0) {
      throw new IllegalArgumentException("max bandwidth of " + maxBandwidth + " bytes/s");
    }
    if (maxRounds < 1) {
      throw new IllegalArgumentException(maxRounds + " rounds: at least the first is needed");
    }
  }

  private static void positive(Duration duration, String what) {
    if (duration.isNegative() || duration.isZero()) {
      throw new IllegalArgumentException(what + " of " + duration);
    }
  }

  /** These options with another downtime limit. */
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
        returnPath,
        machine);
  }

  /** These options with other limits on the rounds, and what happens there. */
  public MigrationOptions withLimits(int rounds, Duration time, AtLimit then) {
    return new MigrationOptions(
        downtimeLimit, maxBandwidth, rounds, time, then, answerLimit, returnPath, machine);
  }

  /** These options with another limit on the destination's answers. */
  public MigrationOptions withAnswerLimit(Duration limit) {
    return new MigrationOptions(
        downtimeLimit, maxBandwidth, maxRounds, timeLimit, atLimit, limit, returnPath, machine);
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
        false,
        machineName);
  }
}
