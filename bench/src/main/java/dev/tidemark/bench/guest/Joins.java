package dev.tidemark.bench.guest;

/** Waiting for a thread that ends soon. */
public final class Joins {
  private Joins() {}

  /** Waits to the end; an interrupt is kept for later. */
  public static void uninterruptibly(Thread thread) {
    boolean interrupted = false;
    while (thread.isAlive()) {
      try {
        thread.join();
      } catch (InterruptedException e) {
        interrupted = true;
      }
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
