package dev.tidemark.engine.bitmap;

import dev.tidemark.engine.internal.Daemon;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;

/**
 * Helps with passes over bitmaps of many MiB, which one core does not read as fast as memory gives
 * them. The caller does one part after the other, and so does a thread of this class; if that gets
 * no processor the caller does all of them, and has lost the microseconds of waking it.
 *
 * <p>Footprint: one daemon thread in the process, from the first such pass on. Threading: any; of
 * two passes at the same time one goes without help. A pass allocates nothing.
 */
final class SecondThread {
  /** Passes over fewer bytes are done before a thread is awake. */
  private static final long WORTHWHILE = 8 << 20;

  /** Bytes of a part: whole words of a summary, and lines of it that nobody else writes. */
  private static final long PART = 1 << 20;

  /** A part that no pass has. */
  private static final long NONE = 0x7fffffffL;

  private static final long PARTS = 0xffffffffL;

  private static final boolean CORES = Runtime.getRuntime().availableProcessors() > 1;

  /** A pass, whose parts may be done in any order and by any thread. */
  interface Pass {
    /** Does the bytes from one offset to another, and says what is to be summed up. */
    long part(long from, long end);
  }

  /** Made, and its thread started, when it is first asked for; null if it cannot be started. */
  private static final class One {
    static final SecondThread INSTANCE = startedOrNull();

    private static SecondThread startedOrNull() {
      try {
        return new SecondThread();
      } catch (OutOfMemoryError e) {
        // The kernel gives no further thread, and passes go on without.
        return null;
      }
    }
  }

  private final AtomicBoolean taken = new AtomicBoolean();

  /** The pass's number, and below it the next part: no part is done twice, or for another pass. */
  private final AtomicLong next = new AtomicLong(NONE);

  /** How many parts the thread has done; what they summed up to is written before. */
  private final AtomicInteger done = new AtomicInteger();

  private final Thread thread = Daemon.unstarted("tidemark-scan", this::help);

  private Pass pass;
  private long bytes;
  private long sum;
  private Throwable failure;

  private SecondThread() {
    thread.start();
  }

  /**
   * Asks for help with a pass over that many bytes of two bitmaps.
   *
   * @return null if the caller had better do it alone; else {@link #run} and {@link #release} must
   *     follow
   */
  static SecondThread take(long bytes, MemorySegment one, MemorySegment other) {
    if (!CORES || bytes < WORTHWHILE) {
      return null;
    }
    SecondThread second = One.INSTANCE;
    return second != null
            && one.isAccessibleBy(second.thread)
            && other.isAccessibleBy(second.thread)
            && second.taken.compareAndSet(false, true)
        ? second
        : null;
  }

  /** Lets others have it. */
  void release() {
    taken.set(false);
  }

  /** Does a pass from offset 0 on, and returns the sum of its parts. */
  long run(Pass pass, long bytes) {
    this.pass = pass;
    this.bytes = bytes;
    sum = 0;
    failure = null;
    done.set(0);
    long number = (next.get() >>> 32) + 1 << 32;
    next.set(number);
    LockSupport.unpark(thread);
    long mine = 0;
    int parts = 0;
    try {
      for (long from = claim(); from >= 0; from = claim()) {
        parts++;
        mine += pass.part(from, Math.min(from + PART, bytes));
      }
    } finally {
      long claimed = next.getAndSet(number | NONE) & PARTS;
      while (parts + done.get() < claimed) {
        Thread.yield();
      }
      this.pass = null;
    }
    if (failure != null) {
      throw new IllegalStateException("a part of a pass over a bitmap failed", failure);
    }
    return mine + sum;
  }

  /** Takes the next part: its offset, negative if there is none left. */
  private long claim() {
    while (true) {
      long ticket = next.get();
      long from = (ticket & PARTS) * PART;
      // If these are the bytes of a later pass, then the ticket is not the next one any more.
      if (from >= bytes) {
        return -1;
      }
      if (next.compareAndSet(ticket, ticket + 1)) {
        return from;
      }
    }
  }

  private void help() {
    while (true) {
      LockSupport.park(this);
      // While the status is set, no park waits. Nobody has a reason to interrupt this thread.
      Thread.interrupted();
      for (long from = claim(); from >= 0; from = claim()) {
        try {
          sum += pass.part(from, Math.min(from + PART, bytes));
        } catch (RuntimeException | Error e) {
          failure = e;
        } finally {
          done.incrementAndGet();
        }
      }
    }
  }
}
