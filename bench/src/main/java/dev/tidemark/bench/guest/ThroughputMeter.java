package dev.tidemark.bench.guest;

/**
 * Notes a guest's progress, once a millisecond, and hands it out by time.
 *
 * <p>Threading: {@link #begin}, {@link #did}, {@link #goesOn} and {@link #end} by the guest's
 * thread, which takes the lock once a millisecond; {@link #take} by any. Allocates nothing but what
 * take returns.
 */
final class ThroughputMeter {
  private static final long SAMPLE_NANOS = 1_000_000;

  /** As many as there are in four seconds. If nobody takes them, the last grows longer. */
  private static final int MAX_SAMPLES = 4096;

  /** The guest's thread's own: the sample under way, and since when. */
  private long pages;

  private long run;
  private long work;
  private long stall;
  private long last;
  private long lastSample;

  /** When the batch under way began, and when it should have. */
  private long begun;

  private long due;

  /** Those below are guarded by this: a ring of samples. */
  private final long[] times = new long[MAX_SAMPLES];

  private final long[] samplePages = new long[MAX_SAMPLES];
  private final long[] sampleRun = new long[MAX_SAMPLES];
  private final long[] sampleWork = new long[MAX_SAMPLES];
  private final long[] sampleStall = new long[MAX_SAMPLES];
  private int first;
  private int count;

  /** The guest begins to run. */
  void begin(long time) {
    last = time;
    lastSample = time;
    goesOn(time, time);
  }

  /** The guest has done some pages. */
  void did(long time, long done) {
    note(time, done);
    if (time - lastSample >= SAMPLE_NANOS) {
      publish(time);
    }
  }

  /**
   * The guest goes on after {@link #did}.
   *
   * @param time when
   * @param allowed when its rate would have let it, not after that
   */
  void goesOn(long time, long allowed) {
    begun = time;
    due = allowed;
  }

  /** The guest no longer runs; the pages under way count when they are done. */
  void end(long time) {
    note(time, 0);
    publish(time);
  }

  private void note(long time, long done) {
    pages += done;
    run += Math.max(0, time - last);
    work += Math.max(0, time - begun);
    stall = Math.max(stall, time - due);
    last = Math.max(last, time);
    goesOn(last, last);
  }

  private synchronized void publish(long time) {
    boolean full = count == MAX_SAMPLES;
    int at = (first + count - (full ? 1 : 0)) % MAX_SAMPLES;
    times[at] = time;
    samplePages[at] = pages + (full ? samplePages[at] : 0);
    sampleRun[at] = run + (full ? sampleRun[at] : 0);
    sampleWork[at] = work + (full ? sampleWork[at] : 0);
    sampleStall[at] = Math.max(stall, full ? sampleStall[at] : 0);
    count += full ? 0 : 1;
    pages = 0;
    run = 0;
    work = 0;
    stall = 0;
    lastSample = time;
  }

  /**
   * Takes what was noted and not taken before.
   *
   * @param until {@link System#nanoTime()}: what ended later stays for the next call
   */
  synchronized Throughput take(long until) {
    long allPages = 0;
    long allRun = 0;
    long allWork = 0;
    long longest = 0;
    for (; count > 0 && times[first] - until <= 0; count--) {
      allPages += samplePages[first];
      allRun += sampleRun[first];
      allWork += sampleWork[first];
      longest = Math.max(longest, sampleStall[first]);
      first = (first + 1) % MAX_SAMPLES;
    }
    return new Throughput(allPages, allRun, allWork, longest);
  }
}
