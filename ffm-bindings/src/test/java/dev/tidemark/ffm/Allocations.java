package dev.tidemark.ffm;

import java.lang.reflect.Method;

/** Bytes that this thread has allocated on the heap, as the JVM counts them. */
public final class Allocations {
  private static final Object BEAN;
  private static final Method COUNT;

  static {
    // By reflection, so that this module need not read java.management for the sake of its tests.
    try {
      BEAN =
          Class.forName("java.lang.management.ManagementFactory")
              .getMethod("getThreadMXBean")
              .invoke(null);
      COUNT =
          Class.forName("com.sun.management.ThreadMXBean")
              .getMethod("getCurrentThreadAllocatedBytes");
    } catch (ReflectiveOperationException e) {
      throw new ExceptionInInitializerError(e);
    }
  }

  private Allocations() {}

  private static long count() {
    try {
      return (long) COUNT.invoke(BEAN);
    } catch (ReflectiveOperationException e) {
      throw new AssertionError(e);
    }
  }

  /**
   * Runs something again and again until it allocates nothing: below the optimizing compiler, each
   * downcall that captures errno boxes 40 bytes.
   *
   * @return bytes that a run of the best of 200 batches allocated, rounded down, so that the
   *     measuring itself does not count
   */
  public static long perRun(Runnable run) {
    return perRun(run, 200, 5_000);
  }

  /** As {@link #perRun(Runnable)}, where so many runs would take too long. */
  public static long perRun(Runnable run, int batches, int runs) {
    long best = Long.MAX_VALUE;
    for (int batch = 0; batch < batches && best > 0; batch++) {
      long before = count();
      for (int i = 0; i < runs; i++) {
        run.run();
      }
      best = Math.min(best, (count() - before) / runs);
    }
    return best;
  }
}
