package dev.tidemark.bench.ratios;

/**
 * How a contest ended.
 *
 * @param path which hot path
 * @param size of the job
 * @param input what it worked on
 * @param tidemarkNanos median time of a job
 * @param rival the other side's name
 * @param rivalNanos its median time
 * @param ratio median of the rival's time divided by Tidemark's, sample by sample
 * @param low a quarter of the ratios are lower
 * @param high a quarter of the ratios are higher
 * @param target the least ratio; 0 for none
 * @param allocated bytes that Tidemark's side allocated on the Java heap for a job
 * @param steady whether it must be none
 */
public record Outcome(
    String path,
    String size,
    String input,
    double tidemarkNanos,
    String rival,
    double rivalNanos,
    double ratio,
    double low,
    double high,
    double target,
    double allocated,
    boolean steady) {

  /** Whether the target is reached, if there is one, and nothing was allocated that must not be. */
  public boolean holds() {
    return (target == 0 || ratio >= target) && !(steady && allocated > 0);
  }
}
