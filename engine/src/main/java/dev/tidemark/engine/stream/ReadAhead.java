package dev.tidemark.engine.stream;

import java.util.function.LongSupplier;

/**
 * Whether to read pages before the kernel copies them. One processor's kernel begins each page's
 * copy slowly when it is not in the cache, and gains a fifth of all by it; another's does not, and
 * loses a seventh (decision 3). So both ways are timed on the pages that are sent, and the faster
 * one is taken for most.
 *
 * <p>Threading: one thread. Cost: no allocation, and a look at the clock in some thousand pages.
 */
final class ReadAhead {
  /** Pages for which one way is kept: some writes, 8 MiB. */
  private static final int WINDOW = 2048;

  /** In this many windows the slower way has one, as it may have become the faster. */
  private static final int ROUND = 16;

  /** A time's part in its way's mean. */
  private static final double NEW = 0.25;

  /** Nanoseconds for a page; without and with. */
  private final double[] nanos = {Double.NaN, Double.NaN};

  private final LongSupplier clock;
  private int way = 1;
  private int windows;
  private int pages;
  private long begin;

  /**
   * @param clock tells nanoseconds
   */
  ReadAhead(LongSupplier clock) {
    this.clock = clock;
  }

  /** Whether to read the next pages. */
  boolean wanted() {
    if (pages == 0) {
      begin = clock.getAsLong();
    }
    return way == 1;
  }

  /** Begins a window anew: the time since the last pages is not theirs. */
  void pause() {
    pages = 0;
  }

  /**
   * Takes note of pages that were sent.
   *
   * @param some how many, not counting zero pages; where there were only those, it is a pause
   */
  void sent(int some) {
    pages += some;
    if (some == 0) {
      pause();
    } else if (pages >= WINDOW) {
      double time = (double) (clock.getAsLong() - begin) / pages;
      nanos[way] = Double.isNaN(nanos[way]) ? time : nanos[way] + NEW * (time - nanos[way]);
      int better = nanos[1] > nanos[0] ? 0 : 1;
      windows++;
      way = windows < ROUND ? windows & 1 : windows % ROUND == 0 ? 1 - better : better;
      pages = 0;
    }
  }
}
