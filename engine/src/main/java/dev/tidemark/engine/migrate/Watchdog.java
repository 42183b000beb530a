package dev.tidemark.engine.migrate;

import dev.tidemark.engine.internal.Daemon;

/**
 * Looks after a migration's thread, which a call of the kernel may hold: no interrupt and no
 * deadline reaches it there, only the connection's end does. The kernel itself ends calls in which
 * not a byte moves ({@link dev.tidemark.ffm.Socket#limitWaits}), so what is left for this is what
 * moves, but too slowly, and who wants it to end.
 *
 * <p>Cost: a look every {@value #PERIOD_MILLIS} ms.
 */
final class Watchdog implements AutoCloseable {
  private static final long PERIOD_MILLIS = 50;

  private final Runnable look;
  private boolean closed;

  private Watchdog(Runnable look) {
    this.look = look;
  }

  /**
   * Starts to look.
   *
   * @param look called from another thread until {@link #close()}, whatever it throws
   */
  static Watchdog start(Runnable look) {
    Watchdog watchdog = new Watchdog(look);
    Daemon.unstarted("tidemark-watch", watchdog::watch).start();
    return watchdog;
  }

  private void watch() {
    while (sleep()) {
      try {
        look.run();
      } catch (Throwable e) {
        // No memory, say: the next look may do better, and a limit that nobody watches is none.
      }
    }
  }

  private synchronized boolean sleep() {
    try {
      if (!closed) {
        wait(PERIOD_MILLIS);
      }
    } catch (InterruptedException e) {
      // Whoever interrupts all threads of the process does not mean this one: it only looks once
      // more.
    }
    return !closed;
  }

  /** Ends the thread; one look may still be under way. */
  @Override
  public synchronized void close() {
    closed = true;
    notifyAll();
  }
}
