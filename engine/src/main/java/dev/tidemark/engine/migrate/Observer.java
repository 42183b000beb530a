package dev.tidemark.engine.migrate;

import dev.tidemark.engine.internal.Daemon;
import java.util.ArrayDeque;
import java.util.function.Consumer;

/**
 * Tells a listener of progress, from a thread of its own: the guest's downtime must not depend on a
 * terminal, a log or a registry of metrics. A listener that does not keep up misses what is out of
 * date: of a phase of a round it gets the last, and of the phases the last {@value #MOST}.
 */
final class Observer implements AutoCloseable {
  private static final int MOST = 64;

  /** How long the last words may take once the migration has ended, in milliseconds. */
  private static final long LAST_WORDS_MILLIS = 1000;

  private final Consumer<Progress> listener;
  private final ArrayDeque<Progress> waiting = new ArrayDeque<>(MOST);
  private final Thread thread = Daemon.unstarted("tidemark-progress", this::tell);
  private boolean closed;
  private boolean failed;

  private Observer(Consumer<Progress> listener) {
    this.listener = listener;
  }

  static Observer start(Consumer<Progress> listener) {
    Observer observer = new Observer(listener);
    observer.thread.start();
    return observer;
  }

  /** Has the listener told; never waits for it. */
  synchronized void accept(Progress progress) {
    Progress last = waiting.peekLast();
    if (last != null && last.phase() == progress.phase() && last.round() == progress.round()) {
      waiting.pollLast();
    } else if (waiting.size() == MOST) {
      waiting.pollFirst();
    }
    waiting.addLast(progress);
    notifyAll();
  }

  private void tell() {
    for (Progress next = next(); next != null; next = next()) {
      try {
        listener.accept(next);
      } catch (Throwable e) {
        if (!failed) {
          failed = true;
          Failures.log(System.Logger.Level.WARNING, "a listener of a migration's progress", e);
        }
      }
    }
  }

  private synchronized Progress next() {
    while (waiting.isEmpty() && !closed) {
      try {
        wait();
      } catch (InterruptedException e) {
        // The listener's own affair: the next progress is told all the same.
      }
    }
    return waiting.pollFirst();
  }

  /** Waits a little for a listener that has not heard all, and lets it hear no more after that. */
  @Override
  public void close() {
    synchronized (this) {
      closed = true;
      notifyAll();
    }
    try {
      thread.join(LAST_WORDS_MILLIS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    synchronized (this) {
      waiting.clear();
    }
  }
}
