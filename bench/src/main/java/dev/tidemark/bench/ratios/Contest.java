package dev.tidemark.bench.ratios;

import java.util.function.LongSupplier;

/**
 * Tidemark and one rival at the same job.
 *
 * @param path which hot path
 * @param size of the job
 * @param input what it works on, such as {@code 1 % scattered}
 * @param rival the other side's name
 * @param target the least ratio of the rival's time to Tidemark's; 0 for none
 * @param tidemark one side
 * @param other the other; null where the rival is a fixed time
 * @param fixedNanos that time, for one job
 * @param steady whether Tidemark's side must allocate nothing on the Java heap
 */
public record Contest(
    String path,
    String size,
    String input,
    String rival,
    double target,
    Side tidemark,
    Side other,
    double fixedNanos,
    boolean steady) {

  /**
   * One side's job.
   *
   * @param prepare comes before each job and is not timed; null if nothing is to be prepared, and
   *     then many jobs are timed together
   * @param job does it; its result must be the other side's
   * @param jobs how many jobs one call does
   */
  public record Side(Runnable prepare, LongSupplier job, int jobs) {}

  /** A rival that is measured too. */
  public static Contest of(
      String path, String size, String input, String rival, double target, Side side, Side other) {
    return new Contest(path, size, input, rival, target, side, other, 0, true);
  }

  /** A time that is not to be exceeded. */
  public static Contest limit(
      String path, String size, String input, String name, double nanos, Side side) {
    return new Contest(path, size, input, name, 1, side, null, nanos, true);
  }

  /** The same where a job makes objects: a connection, a process, a call of the kernel. */
  public Contest unsteady() {
    return new Contest(path, size, input, rival, target, tidemark, other, fixedNanos, false);
  }
}
