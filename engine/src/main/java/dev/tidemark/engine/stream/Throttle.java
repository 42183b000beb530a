package dev.tidemark.engine.stream;

import java.util.concurrent.locks.LockSupport;

/**
 * Holds a sender to so many bytes a second, by letting it wait after each batch that it wrote.
 *
 * <p>Threading: one sender paces; any thread sets the limit, which takes effect within {@value
 * #NAP_MILLIS} ms, also on a sender that waits. So lifting the limit wakes it, for a cancel. An
 * interrupt never lifts it. Cost: no allocation; without a limit one volatile read.
 */
public final class Throttle {
  private static final long NAP_MILLIS = 20;
  private static final long NAP = NAP_MILLIS * 1_000_000;

  /** How much of the time that was not used may be made up for, in nanoseconds. */
  private static final long CREDIT = 100_000_000;

  private volatile long limit;
  private volatile boolean ends;
  private volatile long end;
  private long paced;
  private long due;

  /**
   * @param bytesPerSecond the limit; 0 for none
   */
  public Throttle(long bytesPerSecond) {
    limit(bytesPerSecond);
  }

  /**
   * Changes the limit.
   *
   * @param bytesPerSecond the limit; 0 for none
   */
  public void limit(long bytesPerSecond) {
    if (bytesPerSecond < 0) {
      throw new IllegalArgumentException("a limit of " + bytesPerSecond + " bytes/s");
    }
    limit = bytesPerSecond;
  }

  /** The limit in bytes a second, 0 for none. */
  public long limit() {
    return limit;
  }

  /**
   * Lets no wait go on past a point in time: for a sender that looks at the clock itself.
   *
   * @param nanoTime on {@link System#nanoTime()}'s scale
   */
  public void waitUntilAtMost(long nanoTime) {
    end = nanoTime;
    ends = true;
  }

  /**
   * Waits until that many bytes were due.
   *
   * @param bytes just written, 0 or more
   * @throws IllegalStateException if the thread is interrupted while it has to wait; its interrupt
   *     status stays set, and the bytes stay counted
   */
  public void pace(long bytes) {
    long now = limit;
    if (now == 0) {
      paced = 0;
      return;
    }
    long time = System.nanoTime();
    if (paced != now) {
      paced = now;
      due = time;
    } else if (time - due > CREDIT) {
      due = time - CREDIT;
    }
    due += (long) (bytes * 1e9 / now);
    for (long left = left(time); left > 0 && limit == now; left = left(System.nanoTime())) {
      if (Thread.currentThread().isInterrupted()) {
        throw new IllegalStateException("interrupted while waiting for the bandwidth limit");
      }
      LockSupport.parkNanos(Math.min(left, NAP));
    }
  }

  private long left(long time) {
    long left = due - time;
    return ends ? Math.min(left, end - time) : left;
  }
}
