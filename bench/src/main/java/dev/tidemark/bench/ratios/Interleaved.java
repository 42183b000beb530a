package dev.tidemark.bench.ratios;

import com.sun.management.ThreadMXBean;
import dev.tidemark.bench.ratios.Contest.Side;
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.Locale;

/**
 * Measures both sides of a contest in turn, sample by sample, so that a machine that drifts hurts
 * both alike.
 */
public final class Interleaved {
  private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();

  private static final long STEADY_NANOS = 5_000_000_000L;

  /** Samples of each side where a pair of them takes longer than this. */
  private static final int FEW = 7;

  private static final long LONG_NANOS = 100_000_000;

  private final int samples;
  private final long sampleNanos;
  private final long warmUpNanos;

  /**
   * @param samples of each side, 7 or fewer where a pair takes longer than 100 ms
   * @param sampleNanos how long one should take at least
   * @param warmUpNanos how long each side runs before the first
   */
  public Interleaved(int samples, long sampleNanos, long warmUpNanos) {
    this.samples = samples;
    this.sampleNanos = sampleNanos;
    this.warmUpNanos = warmUpNanos;
  }

  /**
   * Compares the results, warms up and measures.
   *
   * @throws IllegalStateException if the two sides have different results
   */
  public Outcome measure(Contest contest) {
    Side mine = contest.tidemark();
    Side other = contest.other();
    if (other != null) {
      long result = once(mine);
      long expected = once(other);
      if (result != expected) {
        throw new IllegalStateException(
            String.format(
                Locale.ROOT,
                "%s, %s, %s: Tidemark's result is %d, that of %s is %d",
                contest.path(),
                contest.size(),
                contest.input(),
                result,
                contest.rival(),
                expected));
      }
    }
    int calls = warmUp(mine, contest.steady());
    int otherCalls = other == null ? 0 : warmUp(other, false);
    double[] mineNanos = new double[samples];
    double[] otherNanos = new double[samples];
    double[] ratios = new double[samples];
    double allocated = Double.MAX_VALUE;
    int count = samples;
    for (int i = 0; i < count; i++) {
      long begin = System.nanoTime();
      boolean first = i % 2 == 0;
      if (!first && other != null) {
        otherNanos[i] = sample(other, otherCalls);
      }
      long before = THREADS.getCurrentThreadAllocatedBytes();
      mineNanos[i] = sample(mine, calls);
      long after = THREADS.getCurrentThreadAllocatedBytes();
      allocated = Math.min(allocated, (double) (after - before) / calls / mine.jobs());
      if (first && other != null) {
        otherNanos[i] = sample(other, otherCalls);
      }
      if (other == null) {
        otherNanos[i] = contest.fixedNanos();
      }
      ratios[i] = otherNanos[i] / mineNanos[i];
      if (System.nanoTime() - begin > LONG_NANOS) {
        count = Math.min(count, Math.max(FEW, i + 1));
      }
    }
    return outcome(
        contest,
        Arrays.copyOf(mineNanos, count),
        Arrays.copyOf(otherNanos, count),
        Arrays.copyOf(ratios, count),
        allocated);
  }

  private static Outcome outcome(
      Contest contest, double[] mineNanos, double[] otherNanos, double[] ratios, double allocated) {
    int samples = ratios.length;
    Arrays.sort(mineNanos);
    Arrays.sort(otherNanos);
    Arrays.sort(ratios);
    return new Outcome(
        contest.path(),
        contest.size(),
        contest.input(),
        mineNanos[samples / 2],
        contest.rival(),
        otherNanos[samples / 2],
        ratios[samples / 2],
        ratios[samples / 4],
        ratios[samples - 1 - samples / 4],
        contest.target(),
        allocated,
        contest.steady());
  }

  /**
   * Measures jobs of a second or so: 7 of each side in turn, no other way of warming up than the
   * one that is compared.
   *
   * @param reported whether a job returns its time in nanoseconds, as it has another process do it
   */
  public Outcome once(Contest contest, boolean reported) {
    if (!reported) {
      return new Interleaved(FEW, 0, 0).measure(contest);
    }
    double[] mine = new double[FEW];
    double[] others = new double[FEW];
    double[] ratios = new double[FEW];
    for (int i = 0; i < FEW; i++) {
      mine[i] = once(contest.tidemark());
      others[i] = once(contest.other());
      ratios[i] = others[i] / mine[i];
    }
    return outcome(contest, mine, others, ratios, 0);
  }

  private static long once(Side side) {
    if (side.prepare() != null) {
      side.prepare().run();
    }
    return side.job().getAsLong();
  }

  /**
   * Runs a side until it is warm, and finds how many calls fill a sample. What must not allocate is
   * run until it does not, for five seconds at most.
   */
  private int warmUp(Side side, boolean steady) {
    long begin = System.nanoTime();
    int calls = 1;
    double nanos;
    long allocated;
    do {
      long before = THREADS.getCurrentThreadAllocatedBytes();
      nanos = sample(side, calls) * side.jobs() * calls;
      allocated = steady ? THREADS.getCurrentThreadAllocatedBytes() - before : 0;
      if (nanos < sampleNanos && calls < 1 << 24) {
        calls *= 2;
      }
    } while (System.nanoTime() - begin < warmUpNanos
        || nanos < sampleNanos && calls < 1 << 24
        || allocated > 0 && System.nanoTime() - begin < STEADY_NANOS);
    return calls;
  }

  /** Nanoseconds for a job. */
  private static double sample(Side side, int calls) {
    long nanos = 0;
    long sum = 0;
    if (side.prepare() == null) {
      long begin = System.nanoTime();
      for (int i = 0; i < calls; i++) {
        sum += side.job().getAsLong();
      }
      nanos = System.nanoTime() - begin;
    } else {
      for (int i = 0; i < calls; i++) {
        side.prepare().run();
        long begin = System.nanoTime();
        sum += side.job().getAsLong();
        nanos += System.nanoTime() - begin;
      }
    }
    keep = sum;
    return (double) nanos / calls / side.jobs();
  }

  /** Where results go, so that no job can be left out. */
  static volatile long keep;
}
