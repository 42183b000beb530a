package dev.tidemark.ffm;

import java.lang.reflect.Method;

/** Bytes that this thread has allocated on the heap, as the JVM counts them. */
public final class Allocations {
  /** What a call of the kernel may cost, compiled or not: see {@link NativeAccess}. */
  public static final long PER_CALL = 40;

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
   * Runs something again and again.
   *
   * @return bytes that a run of the best of three batches allocated, rounded down, so that neither
   *     the measuring itself counts nor what only the first runs need. Each call of the kernel may
   *     have made {@link #PER_CALL} of them
   */
  public static long perRun(Runnable run) {
    long best = Long.MAX_VALUE;
    for (int batch = 0; batch < 3; batch++) {
      long before = count();
      for (int i = 0; i < 2_000; i++) {
        run.run();
      }
      best = Math.min(best, (count() - before) / 2_000);
    }
    return best;
  }
}
