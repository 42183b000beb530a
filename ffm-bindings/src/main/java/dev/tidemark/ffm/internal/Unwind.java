package dev.tidemark.ffm.internal;

/**
 * Takes apart what was built: each step is tried, whatever the one before threw, and the first
 * failure is told with the others suppressed in it.
 *
 * <p>Threading: any thread. Cost: allocates; not for hot paths.
 */
public final class Unwind {
  private Unwind() {}

  /**
   * Tries a step.
   *
   * @param before the first failure so far, or null
   * @return the first failure, this step's included, or null
   */
  public static Throwable attempt(Throwable before, Runnable step) {
    try {
      step.run();
      return before;
    } catch (Throwable e) {
      return join(before, e);
    }
  }

  /**
   * Closes everything that is not null, in this order.
   *
   * @param before the first failure so far, or null
   * @return the first failure, theirs included, or null
   */
  public static Throwable closeAll(Throwable before, AutoCloseable... things) {
    Throwable failure = before;
    for (AutoCloseable thing : things) {
      try {
        if (thing != null) {
          thing.close();
        }
      } catch (Throwable e) {
        failure = join(failure, e);
      }
    }
    return failure;
  }

  /**
   * Adds a failure to the first one so far, which may be null; returns the first. Never throws: not
   * if both are the same, as the JVM's own OutOfMemoryError may be, nor for want of memory.
   */
  public static Throwable join(Throwable before, Throwable next) {
    if (before == null) {
      return next;
    }
    try {
      if (before != next) {
        before.addSuppressed(next);
      }
    } catch (OutOfMemoryError e) {
      // The first one is what counts.
    }
    return before;
  }

  /** Throws the failure, if there is one. */
  public static void rethrow(Throwable failure) {
    switch (failure) {
      case null -> {}
      case RuntimeException e -> throw e;
      case Error e -> throw e;
      default -> throw new IllegalStateException(failure);
    }
  }
}
